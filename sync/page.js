"use strict";
// Shows the images that match all words of the search, and a state if one is chosen. The address says both: #q=rocky&state=failing
(function () {
  const form = document.getElementById("search");
  const box = document.getElementById("q");
  const chips = Array.from(document.querySelectorAll(".chip"));
  const images = Array.from(document.querySelectorAll(".image"));
  const found = document.getElementById("found");
  let state = "";

  function show() {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const image of images) {
      const text = image.dataset.words;
      const fits = (!state || image.dataset.state === state) && words.every((word) => text.includes(word));
      image.hidden = !fits;
      count += fits ? 1 : 0;
    }
    const all = !state && words.length === 0;
    found.textContent = all ? "" : count === 0 ? "No image matches." : count + " of " + images.length + " images";
    for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.dataset.state === state));
  }

  function remember() {
    const asked = new URLSearchParams();
    if (box.value) asked.set("q", box.value);
    if (state) asked.set("state", state);
    const text = asked.toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  }

  function follow() {
    const given = location.hash.length > 1 ? location.hash.slice(1) : location.search;
    const asked = new URLSearchParams(given);
    box.value = asked.get("q") || "";
    state = chips.some((chip) => chip.dataset.state === asked.get("state")) ? asked.get("state") : "";
    const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    show();
    const seen = images.filter((image) => !image.hidden);
    const one = named && named.classList.contains("image") ? named : seen.length === 1 ? seen[0] : null;
    if (one) one.querySelector("details").open = true;
  }

  box.addEventListener("input", () => { show(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      state = state === chip.dataset.state ? "" : chip.dataset.state;
      show();
      remember();
    });
  }
  window.addEventListener("hashchange", follow);
  form.hidden = images.length === 0;
  follow();
})();
