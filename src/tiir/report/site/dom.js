"use strict";
// Elements from plain values. Every text goes in as text, never as HTML.
(function (tiir) {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, properties, children) {
    for (const [name, value] of Object.entries(properties || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "style") {
        for (const [key, setting] of Object.entries(value)) node.style.setProperty(key, setting);
      } else if (typeof value === "function") node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) node.append(child);
    }
    return node;
  }

  // el("a", {href: "#/", onclick: f}, "text", another): an HTML element
  tiir.el = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
  tiir.svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

  // The words of a data set, kept apart from the direction of the text around them.
  tiir.words = (text) => tiir.el("bdi", { class: "words" }, text);

  // A text for screen readers alone.
  tiir.hidden = (text) => tiir.el("span", { class: "sr" }, text);

  let timer = 0;
  // Say something that happened, for eyes and screen readers.
  tiir.say = (text) => {
    const status = document.getElementById("status");
    status.textContent = text;
    status.hidden = false;
    clearTimeout(timer);
    timer = setTimeout(() => (status.hidden = true), 5000);
  };
})((window.tiir = window.tiir || {}));
