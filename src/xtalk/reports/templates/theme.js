"use strict";
// A switch between light and dark, which remembers; without it the page goes by what the reader prefers.
{
  const root = document.documentElement, preferred = matchMedia("(prefers-color-scheme: dark)");
  const kept = (...value) => {  // a browser may keep nothing for a file
    try { return value.length ? localStorage.setItem("xtalk-theme", value[0]) : localStorage.getItem("xtalk-theme"); }
    catch { return null; }
  };
  const dark = () => (root.dataset.theme ?? (preferred.matches ? "dark" : "light")) === "dark";
  const button = document.createElement("button");
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.type = "button";
  button.className = "theme";
  button.title = "Light or dark page";
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    kept(root.dataset.theme);
    name();
    dispatchEvent(new Event("themechange"));
  });
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();
  name();
  preferred.addEventListener("change", name);
  document.querySelector("[data-theme-switch]").append(button);
}
