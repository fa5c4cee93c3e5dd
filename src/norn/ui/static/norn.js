// What pages cannot do without a script: times in the reader's zone, and changing by themselves.
"use strict";
(() => {
  // ---- times ----
  const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "long" });
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

  function ago(at) {
    const seconds = Math.round((at - Date.now()) / 1000);
    const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? units[3];
    return Math.abs(seconds) < 5 ? "just now" : relative.format(Math.trunc(seconds / size), unit);
  }

  function showTimes(root = document) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const local = absolute.format(at);
      const text = "relative" in element.dataset ? ago(at) : "clock" in element.dataset ? clock.format(at) : local;
      if (element.textContent !== text) element.textContent = text;
      if (element.title !== local) element.title = local;
    }
  }

  // ---- what a step prints ----
  const KEPT = 500;
  const SHOWN = 60000;
  let heard = []; // the last events with output, to be put back when an older state of the page arrives

  function append(event) {
    const steps = document.querySelector("[data-seq][data-operation]");
    if (!steps || event.data.operationId !== steps.dataset.operation || event.id <= Number(steps.dataset.seq)) return;
    const named = [...steps.querySelectorAll("[data-step]")].filter((step) => step.dataset.step === event.data.step);
    const output = named.at(-1)?.querySelector("pre");
    if (!output) return;
    const below = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    output.hidden = false;
    output.textContent = (output.textContent + event.data.text).slice(-SHOWN);
    if (below) output.scrollTop = output.scrollHeight;
  }

  // ---- live updates ----
  const banner = document.getElementById("connection");
  const said = document.getElementById("said");
  const TYPES = ["operation", "deployment", "step", "output", "live", "quarantine", "snapshot", "restore", "artifact", "gap"];
  const SOON = document.body.dataset.events ? 250 : 1000; // ms: what changes together is fetched together
  const PATIENCE = 1500; // ms: a connection that is back by then was never lost, to a reader
  let source, soon, lost, retry, attempt = 0;

  function changed() {
    soon ??= setTimeout(() => {
      soon = undefined;
      document.body.dispatchEvent(new CustomEvent("norn:changed"));
    }, SOON);
  }

  function connected(yes) {
    clearTimeout(lost);
    lost = undefined;
    if (yes) banner.hidden = true;
    else lost = setTimeout(() => { banner.hidden = false; }, PATIENCE);
  }

  function listen() {
    const query = document.body.dataset.events;
    if (query === undefined) return;
    source?.close();
    source = new EventSource(`/api/events${query ? `?${query}` : ""}`);
    source.onopen = () => {
      attempt = 0;
      connected(true);
      changed(); // what has happened since the page was drawn, or the connection was lost
    };
    source.onerror = () => {
      if (lost === undefined && banner.hidden) connected(false);
      // The browser comes back by itself, with Last-Event-ID, unless it was refused.
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(retry);
        retry = setTimeout(() => { changed(); listen(); }, Math.min(1000 * 2 ** attempt++, 15000));
      }
    };
    for (const type of TYPES) {
      source.addEventListener(type, (message) => {
        const event = { id: Number(message.lastEventId), data: JSON.parse(message.data) };
        if (type !== "output") return changed();
        heard.push(event);
        heard = heard.slice(-KEPT);
        append(event);
      });
    }
  }

  // ---- htmx ----
  const live = (context) => context.sourceElement?.closest?.("[data-live]");
  let leaving = false;

  document.addEventListener("htmx:before:response", (event) => {
    const { ctx } = event.detail;
    const answer = ctx.response.raw;
    if (answer.redirected && new URL(answer.url).pathname === "/sign-in") {
      event.preventDefault();
      if (!leaving) location.reload(); // the session has ended: the whole page asks for a new one
      leaving = true; // the other parts of the page hear the same, and would break that off
    } else if (live(ctx) && ctx.response.status >= 400) {
      event.preventDefault(); // better the last state, and to say that it is old
      connected(false);
    } else if (live(ctx)) connected(true);
  });
  document.addEventListener("htmx:error", (event) => {
    if (event.detail.ctx && live(event.detail.ctx)) connected(false);
  });
  document.addEventListener("htmx:after:swap", () => {
    showTimes();
    for (const event of heard) append(event);
    tell();
  });

  // ---- for who does not look: a screen reader hears what has changed, the tab's title shows it ----
  const state = () => document.querySelector("[data-said]")?.dataset ?? {};
  let told = state().said;

  function tell() {
    const { said: now, title } = state();
    if (now && now !== told) said.textContent = told = now;
    if (title && title !== document.title) document.title = title;
  }

  // A browser opens six connections to a server, for all of its tabs: those that nobody looks at leave theirs to others.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return listen();
    source?.close();
    clearTimeout(retry);
    clearTimeout(lost);
    lost = undefined;
  });

  // ---- forms: pressed once is enough ----
  document.addEventListener("submit", (event) => {
    const buttons = event.target.querySelectorAll("button");
    setTimeout(() => { for (const button of buttons) if (event.target.method === "post") button.disabled = true; });
  });
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  showTimes();
  setInterval(showTimes, 10000);
  if (!document.hidden) listen();
})();
