"use strict";
// Filters and sliders. It reads no data but the page's own, and only hides, shows and clips what stands there.
for (const gallery of document.querySelectorAll(".gallery, .roster")) {
  const form = gallery.querySelector(".filters"), count = form.querySelector("output");
  const chosen = [...form.querySelectorAll("select")], shots = [...gallery.querySelectorAll("[data-facets]")];
  const filter = () => {
    let shown = 0;
    for (const shot of shots) {
      const of = shot.dataset.facets.split(" ");
      shot.hidden = chosen.some(one => one.value !== "" && of[Number(one.dataset.facet)] !== one.value);
      if (!shot.hidden) shown += 1;
    }
    count.textContent = shown === shots.length ? `all ${shots.length}` : `${shown} of ${shots.length}`;
  };
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("change", filter);
  form.hidden = chosen.length === 0;
  filter();
}
for (const shot of document.querySelectorAll(".compare .shot")) {
  const slide = shot.querySelector(".slide"), range = slide.querySelector("input"), under = slide.querySelector("select");
  const sides = [...shot.querySelectorAll(".sides > figure")];
  const arrange = () => {
    const over = under.value !== "";
    shot.classList.toggle("slid", over);
    range.hidden = !over;
    sides.forEach((side, index) => { side.hidden = over && index !== Number(under.value) && index !== sides.length - 1; });
    shot.style.setProperty("--at", `${range.value}%`);
  };
  under.addEventListener("change", arrange);
  range.addEventListener("input", arrange);
  slide.hidden = sides.length < 2;
  arrange();
}
if (window.top !== window) {  // MLflow's artifact page and notebooks show the card in a frame that opens nothing
  for (const link of document.querySelectorAll("a[target]")) link.removeAttribute("href");
  for (const note of document.querySelectorAll(".framed-note")) note.hidden = false;
  for (const link of document.querySelectorAll('a[href^="#"]')) {  // not even within the page: it has no address there
    link.addEventListener("click", event => {
      event.preventDefault();
      const target = document.getElementById(link.getAttribute("href").slice(1));
      target.scrollIntoView();
      (target.querySelector("summary") ?? target).focus();
    });
  }
}
