"""The outside world, behind the protocols in `norn.domain.ports`."""
