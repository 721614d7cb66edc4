"use strict";
// Everything a person sees has an address: #/view/id?name=value&...
(function (tiir) {
  tiir.parse = (hash) => {
    const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    const [view = "", id = ""] = path.split("/");
    return { view, id, params: Object.fromEntries(new URLSearchParams(query)) };
  };

  tiir.href = (view, id, params) => {
    const kept = Object.entries(params || {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
    const query = new URLSearchParams(kept).toString();
    return `#/${view}${id === null || id === undefined || id === "" ? "" : `/${id}`}${query ? `?${query}` : ""}`;
  };

  // To queries: the numbers of a table lead there.
  tiir.queriesHref = (params) => tiir.href("queries", null, params);

  // replace: for changes that the back button should skip, as while typing.
  tiir.go = (href, { replace = false } = {}) => {
    if (replace) location.replace(href);
    else location.hash = href;
  };

  // A whole number of the address within bounds, or the fallback.
  tiir.whole = (text, fallback, low = 0, high = Infinity) => {
    const value = /^\d{1,9}$/.test(text || "") ? Number(text) : NaN;
    return value >= low && value <= high ? value : fallback;
  };
})((window.tiir = window.tiir || {}));
