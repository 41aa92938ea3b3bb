/* What every page needs beside htmx: live parts, relative times, the theme, and notices that can be dismissed. */
"use strict";

(() => {
  const root = document.documentElement;

  /* The theme is the system's until somebody chooses another one. */
  const chosen = localStorage.getItem("theme");
  if (chosen) root.dataset.theme = chosen;

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-theme-toggle]")) {
      const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = isDark ? "light" : "dark";
      localStorage.setItem("theme", root.dataset.theme);
    }
    event.target.closest("[data-dismiss]")?.parentElement.remove();
  });

  /* Moments are shown relative to now. */
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const units = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]];
  const written = (seconds) => {
    const away = Math.abs(seconds);
    if (away < 10) return seconds > 2 ? "in a few seconds" : "just now";
    /* The largest unit of which there is one after rounding to the next smaller unit: 59.6 minutes are an hour. */
    const [unit, size] = units.find(([, size], place) => {
      const smaller = units[place + 1]?.[1] ?? 1;
      return Math.round(away / smaller) * smaller >= size;
    }) ?? ["second", 1];
    return relative.format(Math.round(seconds / size), unit);
  };
  const tell = () => {
    for (const time of document.querySelectorAll("time[data-relative]")) {
      const text = written((Date.parse(time.dateTime) - Date.now()) / 1000);
      if (time.textContent !== text) time.textContent = text;
    }
  };
  tell();
  setInterval(tell, 10_000);
  document.addEventListener("htmx:afterSettle", tell);

  /* A refresh neither closes what somebody has opened, nor changes a form that somebody fills in or a picture that a
     script has drawn. */
  Object.assign(Idiomorph.defaults.callbacks, {
    beforeAttributeUpdated: (name) => name !== "open",
    beforeNodeMorphed: (node) => !node.hasAttribute?.("data-keep"),
  });

  /* A part with data-live="TOPIC[:ID]" is asked for again whenever the server says that it has changed. The stream is
     closed while nobody looks, because a browser has few connections to one server. */
  const part = document.querySelector("[data-live]");
  if (!part) return;
  const [of, id = ""] = part.dataset.live.split(":");
  let stream = null;
  let pauseMs = 2_000;
  const refresh = () => {
    const address = location.pathname + location.search;
    htmx.ajax("GET", address, { source: "#live", target: "#live", select: "#live", swap: "morph:outerHTML" });
    document.dispatchEvent(new CustomEvent("ponder:changed"));
  };
  /* A browser gives up a stream that is refused. The page then asks for itself, which leads somebody who is no longer
     signed in to the sign-in, and listens again. */
  const recover = (event) => {
    if (event.target !== stream || stream.readyState !== EventSource.CLOSED) return;
    stream = null;
    setTimeout(() => {
      if (document.hidden || stream) return;
      refresh();
      listen();
    }, pauseMs);
    pauseMs = Math.min(2 * pauseMs, 60_000);
  };
  const listen = () => {
    if (document.hidden) {
      stream?.close();
      stream = null;
    } else if (!stream) {
      stream = new EventSource(`/events?${new URLSearchParams({ of, id })}`);
      stream.addEventListener("open", () => { pauseMs = 2_000; });
      stream.addEventListener("changed", refresh);
      stream.addEventListener("error", recover);
    }
  };
  document.addEventListener("visibilitychange", listen);
  addEventListener("pagehide", () => { stream?.close(); stream = null; });
  addEventListener("pageshow", listen);
  listen();
})();
