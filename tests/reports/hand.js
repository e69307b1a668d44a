// What a hand and a keyboard do on the cluster map, and what it shows then: a line each in the panel.
const told = [], say = () => told.push(panel.querySelector("h2").textContent);
const pause = () => new Promise(done => setTimeout(done, 30));
const press = (where, key) => where.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const place = latent => toScreen(byLatent.get(latent).x, byLatent.get(latent).y);
canvas.setPointerCapture = () => {};  // there is no pointer to capture

function click([x, y]) {
  const box = canvas.getBoundingClientRect();
  for (const kind of ["pointerdown", "pointerup"])
    canvas.dispatchEvent(new PointerEvent(kind, { clientX: box.x + x, clientY: box.y + y }));
}

function between(one, other) {
  const [[x, y], [u, v]] = [place(one), place(other)];
  return [(x + u) / 2, (y + v) / 2];
}

(async () => {
  const steps = [
    () => click(toScreen(discs[2].x, discs[2].y)),
    () => press(document.body, "Escape"),
    () => click(place(5)),
    () => click(between(1, 2)),
    () => click(place(24)),
    () => { search.value = "tok2"; search.dispatchEvent(new Event("input")); },
    () => press(search, "Enter"),
    () => { panel.querySelector("button").focus(); panel.querySelector("button").click(); },
  ];
  for (const step of steps) {
    step();
    await pause();
    say();
  }
  told.push(document.activeElement.tagName);
  const views = [];
  for (const key of ["0", "ArrowRight", "+", "-", "0"]) {
    press(canvas, key);
    views.push({ ...view });
  }
  canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -200, cancelable: true }));
  told.push(views[1].x > views[0].x && views[2].scale > views[1].scale && views[3].scale < views[2].scale);
  told.push(views[4].x === views[0].x && view.scale > views[4].scale);
  panel.replaceChildren(...told.map(line => element("p", String(line))));
})();
