"""Everything that can go wrong, one class each.

An error carries a `code` (stable, for scripts), the HTTP status (RFC 9457 problem document) and the exit status of the
command line that stand for it, a message that says what happened, a hint that says what to do, and the facts as
keyword arguments. The same value is printed, returned by HTTP and stored with an operation.
"""

from __future__ import annotations

TYPE_CHECKING = False  # the command line does without the time that typing takes to import
if TYPE_CHECKING:
    from typing import Any, ClassVar

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_REFUSED = 4
EXIT_BUSY = 5
EXIT_STILL_RUNNING = 6
EXIT_UNREACHABLE = 7
EXIT_NOT_ALLOWED = 8


class NornError(Exception):
    """Something went wrong inside Norn; this is a defect, please report it."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_status: ClassVar[int] = EXIT_FAILED
    hint: str = ""

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        if hint:
            self.hint = hint
        self.facts = facts
        self.noted = False
        """It is in the audit already."""

    def to_json(self) -> dict[str, Any]:
        """`{code, message, hint?, …facts}`, as kept with an operation and shown to people."""
        document: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            document["hint"] = self.hint
        return document | self.facts


# ---- wrong input -------------------------------------------------------------------------------------------------


class Malformed(NornError):
    """The request could not be read."""

    code, status, exit_status = "malformed", 400, EXIT_USAGE


class Invalid(NornError):
    """The request was read, but a value in it is wrong."""

    code, status, exit_status = "invalid", 422, EXIT_USAGE


class TooLarge(NornError):
    """The request body is larger than the server reads."""

    code, status, exit_status = "too_large", 413, EXIT_USAGE


class InfraspecInvalid(NornError):
    """An infraspec.yaml says something that Norn cannot take; `problems` lists each with file, line and column."""

    code, status, exit_status = "infraspec_invalid", 422, EXIT_USAGE


class SettingInvalid(NornError):
    """A setting (environment or norn.toml) has a value that Norn cannot take."""

    code, status, exit_status = "setting_invalid", 422, EXIT_USAGE


class IdempotencyKeyReused(NornError):
    """The same Idempotency-Key came with another request."""

    code, status, exit_status = "idempotency_key_reused", 422, EXIT_USAGE


class TooSlow(NornError):
    """The request did not arrive in time."""

    code, status, exit_status = "too_slow", 408, EXIT_UNREACHABLE


# ---- access ------------------------------------------------------------------------------------------------------


class NotAuthenticated(NornError):
    """No token, or one that this server does not know."""

    code, status, exit_status = "not_authenticated", 401, EXIT_NOT_ALLOWED
    hint = "Set NORN_TOKEN, or run the command as the user who owns NORN_HOME (the token is in its file admin-token)."


class NotAllowed(NornError):
    """The token is known, but may not do this."""

    code, status, exit_status = "not_allowed", 403, EXIT_NOT_ALLOWED


class TooManyAttempts(NornError):
    """Too many wrong tokens came from this address; `retryAfterS` says when another one is looked at."""

    code, status, exit_status = "too_many_attempts", 429, EXIT_NOT_ALLOWED


# ---- unknown things ----------------------------------------------------------------------------------------------


class NotFound(NornError):
    """There is nothing of that name."""

    code, status, exit_status = "not_found", 404, EXIT_NOT_FOUND


class UnknownApp(NotFound):
    code = "unknown_app"


class UnknownVersion(NotFound):
    """No version in the history, or no commit in the repository, goes by that name."""

    code = "unknown_version"


class AmbiguousVersion(NotFound):
    """More than one version goes by that name; `candidates` lists them."""

    code = "ambiguous_version"


class UnknownOperation(NotFound):
    code = "unknown_operation"


class UnknownSecret(NotFound):
    code = "unknown_secret"


class SnapshotMissing(NotFound):
    """No snapshot goes by that name, or its file is gone."""

    code = "unknown_snapshot"


class ImageMissing(NotFound):
    """The version is in the history, but its image no longer exists."""

    code = "image_missing"


# ---- refusals ----------------------------------------------------------------------------------------------------


class NothingToRollBackTo(NornError):
    """No deployment in the history may be rolled back to; `skipped` says why for each."""

    code, status, exit_status = "nothing_to_roll_back_to", 409, EXIT_NOT_FOUND


class Busy(NornError):
    """Another operation of the app is at work and must not be stopped."""

    code, status, exit_status = "busy", 409, EXIT_BUSY


class Stale(NornError):
    """The caller looked at something that has changed since (`from`)."""

    code, status, exit_status = "stale", 409, EXIT_REFUSED


class Unsafe(NornError):
    """The verdict is that rolling back the code is not enough."""

    code, status, exit_status = "unsafe", 409, EXIT_REFUSED


class SchemaDiffers(NornError):
    """A snapshot has another schema than what is live, which could not run on it; `differences` says which."""

    code, status, exit_status = "schema_differs", 409, EXIT_REFUSED


class SharedDatabase(NornError):
    """Other apps use the same database; `apps` names them."""

    code, status, exit_status = "shared_database", 409, EXIT_REFUSED


class Quarantined(NornError):
    """The image was rolled back from and is not deployed again unless asked for."""

    code, status, exit_status = "quarantined", 409, EXIT_REFUSED


class NameTaken(NornError):
    """There is something of this name already."""

    code, status, exit_status = "name_taken", 409, EXIT_REFUSED


class NotDeployable(NornError):
    """The infraspec says `deploy: false`, or the app cannot be deployed as it stands."""

    code, status, exit_status = "not_deployable", 409, EXIT_REFUSED


class Paused(NornError):
    """Somebody has paused the rollouts of the Kubernetes Deployment: a change would be accepted, and nothing happen."""

    code, status, exit_status = "paused", 409, EXIT_REFUSED


class ForeignFields(NornError):
    """Somebody else has set what the infraspec sets, too, and to something else; `fields` says who and what."""

    code, status, exit_status = "foreign_fields", 409, EXIT_REFUSED


class NotPossible(NornError):
    """The operation exists, but not in this state of things (an ended operation cannot be cancelled, say)."""

    code, status, exit_status = "not_possible", 409, EXIT_REFUSED


# ---- the outside world -------------------------------------------------------------------------------------------


class Unavailable(NornError):
    """Something that Norn needs does not answer."""

    code, status, exit_status = "unavailable", 503, EXIT_UNREACHABLE


class DatabaseUnavailable(Unavailable):
    """Norn's own database does not answer."""

    code = "database_unavailable"
    hint = "Norn goes on by itself once PostgreSQL answers again; `norn doctor` shows what it tried."


class RuntimeUnavailable(Unavailable):
    """The runtime (cluster or local processes) does not answer."""

    code = "runtime_unavailable"


class ClusterRefused(NornError):
    """The Kubernetes API server answers, and says no: a missing right, a quota, an object it does not take."""

    code, status, exit_status = "cluster_refused", 503, EXIT_FAILED


class RegistryUnavailable(Unavailable):
    """The registry that keeps the images does not answer, or does not let Norn in."""

    code, exit_status = "registry_unavailable", EXIT_FAILED


class ServerUnreachable(Unavailable):
    """The command line found no server."""

    code = "server_unreachable"
    hint = "Start one with `norn serve`, or set NORN_URL or --url to where it runs."


class ServerNotStarted(NornError):
    """`norn serve` cannot work on this home, this address or this database."""

    code, status, exit_status = "server_not_started", 503, EXIT_FAILED


class StepFailed(NornError):
    """A step of an operation failed; `step` names it, `output` is the end of what it printed."""

    code, status, exit_status = "step_failed", 500, EXIT_FAILED


class BuildFailed(StepFailed):
    code = "build_failed"


class AppTestsFailed(StepFailed):
    code = "tests_failed"


class SnapshotFailed(StepFailed):
    code = "snapshot_failed"


class NoRoom(StepFailed):
    """The disk has not the room that is needed; `neededBytes` and `freeBytes` say how far short it is."""

    code, status = "no_room", 507


class SnapshotDamaged(StepFailed):
    """A dump is not what it was when it was taken, or not whole."""

    code = "snapshot_damaged"


class RestoreFailed(StepFailed):
    """A snapshot could not be restored; the live database is as it was."""

    code = "restore_failed"


class NotConfirmed(StepFailed):
    """Nobody said yes in time to what would be lost; nothing was changed."""

    code = "not_confirmed"


class MigrationFailed(StepFailed):
    code = "migration_failed"


class RolloutFailed(StepFailed):
    """The new version did not become healthy; `reason` is the runtime's word for why."""

    code = "rollout_failed"


class BakeFailed(StepFailed):
    """The version rolled out, and then did not stay healthy."""

    code = "bake_failed"


class PortInUse(RolloutFailed):
    """Another program listens on the app's port."""

    code = "port_in_use"


class ProgramFailed(StepFailed):
    """A program that Norn ran (git, pg_dump, …) ended with an error."""

    code = "program_failed"


class ProgramMissing(StepFailed):
    """A program that Norn needs is not installed."""

    code = "program_missing"


class Cancelled(NornError):
    """The operation was cancelled, by whom and why is in the facts."""

    code, status, exit_status = "cancelled", 409, EXIT_FAILED


class LeaseLost(NornError):
    """Another server has taken the operation over; nothing more may be written for it here."""

    code, status, exit_status = "lease_lost", 500, EXIT_FAILED


class Abandoned(NornError):
    """The operation was taken up again too many times without coming to an end."""

    code, status, exit_status = "abandoned", 500, EXIT_FAILED


class StillRunning(NornError):
    """The command's --timeout passed; the operation goes on."""

    code, status, exit_status = "still_running", 504, EXIT_STILL_RUNNING


def _all_classes(cls: type[NornError]) -> list[type[NornError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in _all_classes(child))]


def exit_status_of(code: str) -> int:
    """The exit status for an error code that came over HTTP; 1 for one this version does not know."""
    for cls in _all_classes(NornError):
        if cls.code == code:
            return cls.exit_status
    return EXIT_FAILED
