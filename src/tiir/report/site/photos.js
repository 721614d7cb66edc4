"use strict";
// Photos and captions by position, as every view shows them.
(function (tiir) {
  const { el, words } = tiir;
  const LONG = 320; // characters of a caption before it is cut

  function source(image, full) {
    if (full && tiir.site.live) return Promise.resolve(`photos/${image}`);
    if (!tiir.site.single) return Promise.resolve(`thumbs/${image}.webp`);
    return tiir.load("thumbs").then((thumbs) => thumbs[image]);
  }

  const firstCaption = (t, image) => (t.ofImage[image].length ? t.captions.text[t.ofImage[image][0]] : "a photo without captions");

  // A photo with its first caption as its text; without photos, that caption in its place. Its box has its shape before it
  // is loaded, so nothing moves.
  function photo(t, image, { full = false, label = null } = {}) {
    const alt = cut(label === null ? firstCaption(t, image) : label);
    if (!tiir.site.photos) return el("span", { class: "photo no-photo" }, words(alt));
    const width = t.images.width[image] || 4;
    const height = t.images.height[image] || 3;
    const img = el("img", { class: "photo", alt, width, height, loading: "lazy", decoding: "async", style: { "aspect-ratio": `${width} / ${height}` } });
    img.addEventListener("error", () => img.replaceWith(el("span", { class: "photo no-photo" }, words(alt))));
    source(image, full).then((src) => (src ? img.setAttribute("src", src) : img.dispatchEvent(new Event("error"))));
    return img;
  }

  const cut = (text) => (text.length > LONG ? `${text.slice(0, LONG)} …` : text);

  // A caption; a very long one is cut, with a button that shows the rest.
  function caption(text, kind = "") {
    if (text.length <= LONG) return el("span", { class: `caption ${kind}` }, words(text || "(an empty caption)"));
    const shown = words(cut(text));
    const button = el("button", {
      type: "button", class: "link", "aria-expanded": "false",
      onclick: () => {
        const open = button.getAttribute("aria-expanded") === "false";
        button.setAttribute("aria-expanded", String(open));
        button.textContent = open ? "less" : "more";
        shown.textContent = open ? text : cut(text);
      },
    }, "more");
    return el("span", { class: `caption ${kind}` }, shown, " ", button);
  }

  tiir.photos = { photo, caption, cut, firstCaption };
})((window.tiir = window.tiir || {}));
