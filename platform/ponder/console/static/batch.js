/* Dialogs of the page of a batch, and a look at once after it was changed. */
"use strict";

(() => {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens).showModal();
    if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
  });

  /* What came of it is told in the notice, which a modal dialog would cover. */
  document.addEventListener("htmx:afterRequest", (event) => event.target.closest?.("dialog")?.close());

  document.addEventListener("ponder:stale", () => {
    htmx.ajax("GET", location.pathname + location.search, {
      source: "#live", target: "#live", select: "#live", swap: "morph:outerHTML",
    });
  });

  /* Adding up takes longer than the page, so that the costs by level follow at most every few seconds, but surely after
     the last change. */
  let due = null;
  document.addEventListener("ponder:changed", () => {
    due ??= setTimeout(() => { due = null; htmx.trigger("#levels-body", "ponder:due"); }, 4_000);
  });
})();
