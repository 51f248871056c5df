// The pairs: two pictures beside each other, or one above the other where there is little room.

const SVG = "http://www.w3.org/2000/svg";
const NARROW = 420;

function drawPair(figure) {
  const pair = data.pairs[Number(figure.dataset.pair)];
  const [a, b] = [pair.a, pair.b].map((name) => data.pairPictures[name]);
  const place = figure.querySelector(".drawing");
  const stacked = place.clientWidth < NARROW && a[0] > a[1];
  // Both pictures get one height, or one width where they are stacked.
  const side = stacked ? 0 : 1;
  const sizes = [a, b].map((p) => [1000 * p[0] / p[side], 1000 * p[1] / p[side]]);
  const offset = stacked ? [0, sizes[0][1] + 12] : [sizes[0][0] + 12, 0];
  const [width, height] = [offset[0] + sizes[1][0], offset[1] + sizes[1][1]];
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-hidden", "true");
  const add = (parent, tag, attributes) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return parent.appendChild(element);
  };
  [a, b].forEach((p, i) => add(svg, "image", {
    href: jpeg(p[2]), x: i * offset[0], y: i * offset[1], width: sizes[i][0], height: sizes[i][1],
  }));
  const lines = new Uint16Array(bytes(pair.lines));
  const groups = [add(svg, "g", { class: "out" }), add(svg, "g", { class: "in" })];
  for (let i = 0; i < lines.length / 4; i++) {
    const [x0, y0, x1, y1] = Array.from(lines.subarray(4 * i, 4 * i + 4), (v) => v / 65535);
    add(groups[i < pair.outliers ? 0 : 1], "line", {
      x1: (x0 * sizes[0][0]).toFixed(1), y1: (y0 * sizes[0][1]).toFixed(1),
      x2: (offset[0] + x1 * sizes[1][0]).toFixed(1), y2: (offset[1] + y1 * sizes[1][1]).toFixed(1),
      "stroke-opacity": 0.7,
    });
  }
  place.replaceChildren(svg);
}

const pairFigures = document.querySelectorAll(".pair");
whenSeen(pairFigures, drawPair);
matchMedia("(max-width: 34rem)").addEventListener("change", () => pairFigures.forEach(drawPair));
for (const [id, name] of [["inliers", "hide-in"], ["outliers", "hide-out"]]) {
  onChange(id, (event) => byId("pairs").classList.toggle(name, !event.target.checked));
}
