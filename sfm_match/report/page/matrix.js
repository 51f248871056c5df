// The matrix of verified matches.

function showMatrix() {
  const { names, step, values } = data.matrix;
  const counts = new Uint16Array(bytes(values));
  const size = names.length, canvas = byId("matrix"), draw = canvas.getContext("2d");
  const cell = canvas.width / size, largest = Math.max(...counts, 1);
  let at = null;

  const mix = (low, high, part) => low.map((v, i) => Math.round(v + part * (high[i] - v)));
  const rgb = (name) => colour(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));

  const paint = () => {
    const low = rgb("--cell0"), high = rgb("--cell1");
    draw.fillStyle = colour("--card");
    draw.fillRect(0, 0, canvas.width, canvas.height);
    const gap = cell > 6 ? 1 : 0;
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const count = counts[row * size + column];
        const strength = Math.log1p(count) / Math.log1p(largest);
        draw.fillStyle = row === column && step === 1 ? colour("--line") : `rgb(${mix(low, high, strength ** 1.5)})`;
        draw.fillRect(column * cell, row * cell, Math.ceil(cell) - gap, Math.ceil(cell) - gap);
        if (cell >= 40 && count) {
          draw.fillStyle = strength ** 1.5 > 0.45 ? colour("--card") : colour("--ink");
          draw.font = `${Math.min(cell / 3, 22)}px system-ui, sans-serif`;
          draw.textAlign = "center";
          draw.textBaseline = "middle";
          draw.fillText(count, (column + 0.5) * cell, (row + 0.5) * cell);
        }
      }
    }
    if (at) {
      draw.strokeStyle = colour("--true");
      draw.lineWidth = 4;
      draw.strokeRect(at[0] * cell, at[1] * cell, cell, cell);
    }
  };

  const say = () => {
    const [column, row] = at;
    const count = counts[row * size + column];
    const [a, b] = [names[row], names[column]];
    const around = step > 1 ? ` (and the ${step - 1} images after each): at most` : ":";
    byId("cell").textContent = row === column && step === 1 ? a : `${a} and ${b}${around} ${count} verified matches`;
    paint();
  };
  const move = (column, row) => {
    const inside = (v) => Math.max(0, Math.min(size - 1, v));
    at = [inside(column), inside(row)];
    say();
  };
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    move(Math.floor((event.clientX - box.left) / box.width * size), Math.floor((event.clientY - box.top) / box.height * size));
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    const [column, row] = at ?? [0, 0];
    move(column + by[0], row + by[1]);
  });
  dark.addEventListener("change", paint);
  paint();
}

if (data.matrix) showMatrix();
