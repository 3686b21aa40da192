"use strict";
(() => {
  const box = document.getElementById("search"), found = document.getElementById("found");
  const examples = [...document.querySelectorAll(".example")];
  const texts = examples.map((e) => e.textContent.toLowerCase());
  const show = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    examples.forEach((e, i) => {
      e.hidden = !words.every((word) => texts[i].includes(word));
      shown += !e.hidden;
    });
    found.textContent = `${shown} of ${examples.length} examples`;
  };
  if (examples.length) {
    box.closest(".search").hidden = false;
    box.addEventListener("input", show);
    show();
  }
})();
