"use strict";
// Numbers and names as people read them.
(function (tiir) {
  const DIRECTIONS = ["i2t", "t2i"];
  const known = (value) => typeof value === "number" && Number.isFinite(value);

  tiir.format = {
    directions: DIRECTIONS,
    direction: (side) => (side === "i2t" ? "Image to text" : "Text to image"),
    whole: (value) => (known(value) ? value.toLocaleString("en") : "–"),
    percent: (value) => (known(value) ? value.toFixed(1) : "–"),
    signed: (value) => (known(value) ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}` : "–"),
    score: (value) => (known(value) ? (Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(3)).replace("-", "−") : "–"),
    times: (value) => (known(value) ? `×${value.toFixed(2)}` : "–"),
    interval: (pair) => (pair && known(pair[0]) && known(pair[1]) ? `${pair[0].toFixed(1)}–${pair[1].toFixed(1)}` : ""),
    count: (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`,
    known,
    // Where a site holds some of the queries only: the numbers are of all, the lists of a sample.
    sample: () => {
      const shown = Object.entries(tiir.site.sampled || {}).map(([side, [some, all]]) => `${some.toLocaleString("en")} of ${all.toLocaleString("en")} queries ${side === "i2t" ? "image to text" : "text to image"}`);
      return shown.length ? `Lists show a sample: ${shown.join(", ")}. The numbers are of all queries.` : "";
    },
  };
})((window.tiir = window.tiir || {}));
