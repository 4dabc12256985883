// The lag monitor: a line for each serving over the last looks, a table of now, and buttons.

const LOOKS = 120;
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"];
const DASHES = ["", "6 3", "2 3", "10 3 2 3", "4 4", "1 2"];

function render({ model, el }) {
  const { actions, every } = model.get("start");
  const page = live(model, el);
  const said = make("div", { role: "status", class: "cqrs-lab-said" });
  const chart = make("div", { class: "cqrs-lab-chart" });
  const shown = make("div", { class: "cqrs-lab-page" });
  const history = new Map();
  let looks = 0, paused = false;
  const pause = make("button", { type: "button", "aria-pressed": "false", onclick: () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "look again" : "hold still";
  } }, "hold still");
  const buttons = actions.map((name) => make("button", { type: "button", onclick: () => {
    page.ask({ ask: "do", do: name }, (answer) => { said.textContent = answer.said ?? ""; put(answer); }, true);
  } }, name));
  page.body.append(make("div", { class: "cqrs-lab-row" }, ...buttons, pause), said, page.trouble, chart, shown);

  function put(answer) {
    if (answer.page === undefined) return;
    if (shown.innerHTML !== answer.page) shown.innerHTML = answer.page;
    looks += 1;
    for (const [name, behind] of Object.entries(answer.behind)) {
      if (!history.has(name)) history.set(name, []);
      history.get(name).push([looks, behind]);
    }
    for (const [name, points] of history) {
      while (points.length && points[0][0] <= looks - LOOKS) points.shift();
      if (!points.length) history.delete(name);
    }
    draw();
  }

  function draw() {
    const width = Math.max(chart.clientWidth, 300), height = 126, left = 40, bottom = 18, top = 8;
    const all = [...history.values()].flat();
    const most = Math.max(4, ...all.map(([, behind]) => behind));
    const x = (look) => left + (width - left - 8) * (1 - (looks - look) / LOOKS);
    const y = (behind) => top + (height - top - bottom) * (1 - behind / most);
    const now = [...history].map(([name, points]) => `${name} ${points.at(-1)[1]}`).join(", ");
    const lines = [...history].map(([, points], n) =>
      `<polyline fill="none" stroke="${COLOURS[n % 6]}" stroke-width="2" stroke-dasharray="${DASHES[n % 6]}" points="${
        points.map(([look, behind]) => `${x(look).toFixed(1)},${y(behind).toFixed(1)}`).join(" ")}"/>`);
    const svg = `<svg role="img" viewBox="0 0 ${width} ${height}">
      <line x1="${left}" x2="${width - 8}" y1="${y(0)}" y2="${y(0)}" stroke="currentColor" stroke-width="1"/>
      <text x="${left - 6}" y="${y(0) + 4}" text-anchor="end">0</text>
      <text x="${left - 6}" y="${y(most) + 8}" text-anchor="end">${most}</text>
      <text x="${width - 8}" y="${height - 3}" text-anchor="end">now</text>
      <text x="${left}" y="${height - 3}">${Math.round(LOOKS * every)} s ago</text>${lines.join("")}</svg>`;
    const legend = make("div", { class: "cqrs-lab-row" }, ...[...history.keys()].map((name, n) => {
      const line = make("span", { "aria-hidden": "true" });
      line.innerHTML = `<svg style="width: 2.2em; height: 0.8em; display: inline-block" viewBox="0 0 30 8"><line x1="0" x2="30" y1="4" y2="4" stroke="${
        COLOURS[n % 6]}" stroke-width="3" stroke-dasharray="${DASHES[n % 6]}"/></svg>`;
      return make("span", {}, line, ` ${name}`);
    }));
    chart.innerHTML = svg;
    chart.firstElementChild.setAttribute("aria-label", `events behind, over time; now: ${now || "nothing is served"}`);
    chart.append(legend);
  }

  const stop = repeat(page, (again) => {
    if (paused) return again(every * 1000);
    page.ask({ ask: "state" }, (answer) => {
      put(answer);
      if (!answer.closed) again(every * 1000); // a lab that is closed has no lag any more
    });
  });
  return () => { stop(); page.close(); };
}

export default { render };
