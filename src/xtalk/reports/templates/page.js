"use strict";
// Tables that sort and filter, figures that say their values, zoom and are exported. Without it the page is whole, but still.
{
  const FILTERED = 8;  // rows from which a table has a filter
  const made = (tag, attributes = {}, ...content) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...content);
    return element;
  };

  // ---- tables

  const superscripts = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const plain = text => text.replace(/[⁰¹²³⁴⁵⁶⁷⁸⁹]/g, sign => superscripts.indexOf(sign)).replace(/[⁻−]/g, "-");

  function value(cell) {  // a number where the cell begins with one, else its words; null where there is none
    const text = plain((cell?.querySelector("b") ?? cell)?.textContent.replace(/[\s\u202f▾+]/g, "") ?? "");
    if (text === "" || text.startsWith("–")) return null;
    const number = text.match(/^(-?\d+(?:\.\d+)?)(?:×10(-?\d+))?(?![\w.])/);
    return number ? Number(number[1]) * 10 ** Number(number[2] ?? 0) : cell.textContent.trim();
  }

  function compare(a, b) {
    if (typeof a === typeof b && typeof a === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, undefined, { numeric: true });
  }

  function columns(head) {  // which column each heading of one column is above, where headings span rows and columns
    const taken = [...head.rows].map(() => []), found = [];
    [...head.rows].forEach((row, y) => {
      for (const th of row.cells) {
        let x = 0;
        while (taken[y][x]) x++;
        for (let dy = 0; dy < th.rowSpan; dy++) for (let dx = 0; dx < th.colSpan; dx++) taken[y + dy][x + dx] = true;
        if (th.colSpan === 1) found.push([th, x]);
      }
    });
    return found;
  }

  function sortable(table) {
    const body = table.tBodies[0], original = [...body.rows];
    for (const [th, column] of columns(table.tHead)) {
      const button = made("button", { type: "button", className: "sort" });
      button.append(...th.childNodes);
      th.append(button);
      button.addEventListener("click", () => {
        const before = th.getAttribute("aria-sort"), numbers = original.some(row => typeof value(row.cells[column]) === "number");
        const [first, second] = numbers ? ["descending", "ascending"] : ["ascending", "descending"];
        const now = before === first ? second : before === second ? null : first;
        for (const [other] of columns(table.tHead)) other.removeAttribute("aria-sort");
        if (now) th.setAttribute("aria-sort", now);
        const keyed = original.map((row, place) => ({ row, place, key: value(row.cells[column]) }));
        const sign = now === "descending" ? -1 : 1;
        if (now) keyed.sort((a, b) =>
          (a.key === null) - (b.key === null) || (a.key === null ? 0 : sign * compare(a.key, b.key)) || a.place - b.place);
        body.append(...keyed.map(one => one.row));
      });
    }
  }

  function filterable(table) {
    const rows = [...table.tBodies[0].rows], count = made("span", { role: "status" });
    const input = made("input", { type: "search", placeholder: "words of a row" });
    let texts = null;
    input.addEventListener("input", () => {
      texts ??= rows.map(row => row.textContent.toLowerCase());
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, place) => {
        row.hidden = !words.every(word => texts[place].includes(word));
        shown += !row.hidden;
      });
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
    });
    (table.closest(".scroll") ?? table).before(made("p", { className: "filter" }, made("label", {}, "Filter ", input), " ", count));
  }

  for (const table of document.querySelectorAll("main table")) {
    const rows = table.tHead ? table.tBodies[0].rows.length : 0;
    if (rows > 1) sortable(table);
    if (rows >= FILTERED) filterable(table);
  }

  // ---- figures

  function save(blob, name) {
    const link = made("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const svgOf = image => new Blob([Uint8Array.from(atob(image.src.split(",")[1]), sign => sign.charCodeAt(0))], { type: "image/svg+xml" });

  function png(image, name) {
    const canvas = made("canvas", { width: 3 * image.naturalWidth, height: 3 * image.naturalHeight });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob(blob => save(blob, name), "image/png");
  }

  function figure(plate) {
    const image = plate.querySelector("img"), spots = JSON.parse(plate.dataset.spots), name = plate.dataset.name;
    const ring = made("span", { className: "ring", hidden: true }), tip = made("span", { className: "tip", hidden: true });
    const said = made("p", { className: "away", role: "status" }), sheet = made("div", { className: "sheet" });
    const view = { scale: 1, x: 0, y: 0 };
    let current = -1, held = null;
    image.before(sheet);
    sheet.append(image, ring);
    plate.append(tip);
    plate.tabIndex = 0;
    plate.setAttribute("role", "group");
    plate.setAttribute("aria-label", `${image.alt} ${spots.length} values: arrow keys go through them; plus, minus and 0 zoom.`);

    function place() {
      view.x = Math.min(0, Math.max(plate.clientWidth * (1 - view.scale), view.x));
      view.y = Math.min(0, Math.max(plate.clientHeight * (1 - view.scale), view.y));
      sheet.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
      plate.classList.toggle("zoomed", view.scale > 1);
      if (current >= 0) show(current, false);
    }

    function zoom(factor, x = plate.clientWidth / 2, y = plate.clientHeight / 2) {
      const scale = Math.max(1, Math.min(12, view.scale * factor)), ratio = scale / view.scale;
      Object.assign(view, { scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio });
      place();
    }

    const at = spot => [spot[0] * image.clientWidth * view.scale + view.x, spot[1] * image.clientHeight * view.scale + view.y];

    function show(spot, aloud) {
      current = spot;
      ring.hidden = tip.hidden = spot < 0;
      if (spot < 0) return;
      const [x, y] = at(spots[spot]);
      ring.style.left = `${100 * spots[spot][0]}%`;
      ring.style.top = `${100 * spots[spot][1]}%`;
      ring.style.scale = 1 / view.scale;
      tip.textContent = spots[spot][2];
      tip.style.left = `${Math.max(0, Math.min(plate.clientWidth - tip.offsetWidth, x + 10))}px`;
      tip.style.top = `${Math.max(0, y - tip.offsetHeight - 10)}px`;
      if (aloud) said.textContent = spots[spot][2];
    }

    function nearest(x, y) {
      let best = -1, least = 24;  // pixels
      spots.forEach((spot, k) => {
        const [u, v] = at(spot), far = Math.hypot(u - x, v - y);
        if (far < least) [best, least] = [k, far];
      });
      return best;
    }

    function inside(spot) {  // moves the sheet so that the spot is in view
      const [x, y] = at(spots[spot]);
      view.x -= Math.min(0, x - 20) + Math.max(0, x - plate.clientWidth + 20);
      view.y -= Math.min(0, y - 20) + Math.max(0, y - plate.clientHeight + 20);
      place();
    }

    plate.addEventListener("pointermove", e => {
      const box = plate.getBoundingClientRect(), x = e.clientX - box.x, y = e.clientY - box.y;
      if (!held) return show(nearest(x, y), false);
      view.x += e.clientX - held.x;
      view.y += e.clientY - held.y;
      held = { x: e.clientX, y: e.clientY };
      place();
    });
    plate.addEventListener("pointerleave", () => { if (document.activeElement !== plate) show(-1); });
    plate.addEventListener("blur", () => show(-1));
    plate.addEventListener("pointerdown", e => {
      if (view.scale === 1) return;
      held = { x: e.clientX, y: e.clientY };
      plate.setPointerCapture(e.pointerId);
      e.preventDefault();
    });
    for (const end of ["pointerup", "pointercancel"]) plate.addEventListener(end, () => { held = null; });
    plate.addEventListener("wheel", e => {  // a bare wheel scrolls the page
      if (!e.ctrlKey && !e.metaKey) return;
      e.preventDefault();
      const box = plate.getBoundingClientRect();
      zoom(Math.exp(-e.deltaY / 300), e.clientX - box.x, e.clientY - box.y);
    }, { passive: false });
    plate.addEventListener("keydown", e => {
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (e.key in steps && spots.length) {
        show((current < 0 ? (steps[e.key] > 0 ? 0 : spots.length - 1) : current + steps[e.key] + spots.length) % spots.length, true);
        inside(current);
      } else if (e.key === "+" || e.key === "=") zoom(1.5);
      else if (e.key === "-") zoom(1 / 1.5);
      else if (e.key === "0") zoom(0);
      else if (e.key === "Escape") show(-1);
      else return;
      e.preventDefault();
    });
    addEventListener("resize", place);

    const tool = (label, words, action) => made("button", { type: "button", title: words, ariaLabel: words, onclick: action }, label);
    plate.after(made("p", { className: "tools" },
      tool("+", `zoom in: ${name}`, () => zoom(1.5)), tool("−", `zoom out: ${name}`, () => zoom(1 / 1.5)), tool("1:1", `whole figure: ${name}`, () => zoom(0)),
      tool("SVG", `save ${name}.svg`, () => save(svgOf(image), `${name}.svg`)), tool("PNG", `save ${name}.png`, () => png(image, `${name}.png`))), said);
  }

  document.querySelectorAll(".plate").forEach(figure);

  // ---- paper

  addEventListener("beforeprint", () => {
    for (const closed of document.querySelectorAll("details:not([open])")) {
      closed.open = true;
      closed.dataset.printed = "";
    }
  });
  addEventListener("afterprint", () => {
    for (const opened of document.querySelectorAll("details[data-printed]")) {
      opened.open = false;
      delete opened.dataset.printed;
    }
  });
}
