"use strict";
// What the live server answers. It refuses requests without the header, so other sites cannot send one.
(function (tiir) {
  async function ask(path, options) {
    const response = await fetch(`api/${path}`, { credentials: "same-origin", ...options });
    if (response.status === 401) location.assign(`login/${location.hash}`); // the server was started anew, with another token
    let answer = {};
    try {
      answer = await response.json();
    } catch {
      // no JSON: the status says enough
    }
    if (response.ok) return answer;
    const error = new Error([answer.error || `The server answered ${response.status}`, answer.hint].filter(Boolean).join(". "));
    error.refused = response.status >= 400 && response.status < 500 && ![401, 408, 429].includes(response.status);
    throw error;
  }

  function post(path, body) {
    const form = body instanceof FormData;
    return ask(path, {
      method: "POST",
      headers: form ? { "X-Tiir": "1" } : { "X-Tiir": "1", "Content-Type": "application/json" },
      body: form ? body : JSON.stringify(body),
    });
  }

  tiir.api = { get: (path) => ask(path, {}), post };
})((window.tiir = window.tiir || {}));
