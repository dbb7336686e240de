"use strict";
for (const box of document.querySelectorAll(".wipes")) {
  const slider = box.querySelector("input[type=range]");
  const show = () => box.style.setProperty("--at", 100 - slider.value + "%");
  box.classList.add("wiping");
  box.querySelector(".wipe").hidden = false;
  slider.addEventListener("input", show);
  show();
}
