// The time machine: two handles over the log, each a slider, a number and a day that move together.

const REST = 200; // ms without a move, after which rows and difference are asked for

function render({ model, el }) {
  const log = { ...model.get("start") };
  const page = live(model, el, told);
  const counts = make("div", { class: "cqrs-lab-page cqrs-lab-counts" });
  const rows = make("div", { class: "cqrs-lab-page cqrs-lab-rows" });
  const one = handle("position", log.position);
  const other = handle("other position", log.compare ?? log.head);
  const compare = make("input", { type: "checkbox", onchange: () => moved() });
  compare.checked = log.compare !== null && log.compare !== undefined;
  const compared = named("compare two positions", compare);
  compared.classList.add("cqrs-lab-beside");
  const keys = make("p", {}, "Keys on a slider: ← → one event, Page Up and Page Down one day, Home and End the whole log.");
  page.body.append(one.box, make("div", { class: "cqrs-lab-row" }, compared), other.box, keys, page.trouble, counts, rows);
  other.box.hidden = !compare.checked;
  let rest = 0;
  moved();

  function dayAt(position) { // the first day by whose end the position was recorded
    let low = 0, high = log.ends.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (log.ends[middle] < position) low = middle + 1; else high = middle;
    }
    return low;
  }

  function handle(name, value) {
    const slider = make("input", { type: "range", min: 0, max: log.head, step: 1, "aria-label": `${name} in the log` });
    const number = make("input", { type: "number", min: 0, max: log.head, step: 1 });
    const day = make("input", { type: "date" });
    const said = make("output", { "aria-hidden": "true" });
    const me = { value, name };

    function put(position) {
      me.value = Math.max(0, Math.min(log.head, Math.round(Number(position) || 0)));
      const at = dayAt(me.value), date = me.value ? log.days[at] ?? "" : "";
      for (const field of [slider, number]) field.max = log.head;
      slider.value = number.value = me.value;
      day.min = log.days[0] ?? "";
      day.max = log.days.at(-1) ?? "";
      if (day.value !== date) day.value = date;
      const words = `position ${me.value.toLocaleString("en")} of ${log.head.toLocaleString("en")}` +
        (date ? `, recorded on ${date}` : ", before the first event");
      said.textContent = words;
      slider.setAttribute("aria-valuetext", words);
    }

    function step(days) { // to the end of the day before, or of the day after
      const at = dayAt(me.value);
      const ended = log.ends[at] === me.value;
      const to = me.value ? at + (days > 0 ? (ended ? 1 : 0) : -1) : (days > 0 ? 0 : -1);
      put(to < 0 ? 0 : log.ends[Math.min(to, log.ends.length - 1)] ?? log.head);
      moved();
    }

    slider.addEventListener("input", () => { put(slider.value); moved(); });
    slider.addEventListener("keydown", (event) => {
      const days = { PageUp: 1, PageDown: -1 }[event.key];
      if (!days) return;
      event.preventDefault();
      step(days);
    });
    number.addEventListener("change", () => { put(number.value); moved(); });
    day.addEventListener("change", () => {
      if (!day.value) return;
      // The last day that is not after it; before the first one nothing was recorded.
      const at = log.days.filter((one) => one <= day.value).length - 1;
      put(at < 0 ? 0 : log.ends[at]);
      moved();
    });
    me.box = make("div", { role: "group", "aria-label": `${name}: slider, number and day` },
      make("div", { class: "cqrs-lab-row" },
        make("div", { class: "cqrs-lab-wide" }, slider),
        named(name === "position" ? "position" : "from position", number),
        named(name === "position" ? "day" : "from day", day),
        make("button", { type: "button", onclick: () => step(-1) }, name === "position" ? "a day back" : "from a day earlier"),
        make("button", { type: "button", onclick: () => step(1) }, name === "position" ? "a day on" : "from a day later"),
        said));
    put(value);
    me.put = put;
    return me;
  }

  function moved() {
    other.box.hidden = !compare.checked;
    rows.classList.add("cqrs-lab-late");
    page.ask({ ask: "counts", position: one.value }, (answer) => {
      if (answer.counts !== undefined) counts.innerHTML = answer.counts;
      clearTimeout(rest); // counted from the answer, so that a slow machine does not ask for rows between two steps
      rest = setTimeout(rested, REST);
    });
    clearTimeout(rest);
  }

  function rested() {
    const question = { ask: "rows", position: one.value, compare: compare.checked ? other.value : null, head: log.head };
    page.ask(question, (answer) => {
      if (answer.head !== undefined) grown(answer);
      if (answer.rows === undefined || one.value !== question.position) return;
      rows.innerHTML = answer.rows;
      rows.classList.remove("cqrs-lab-late");
    });
  }

  function grown(message) {
    Object.assign(log, { head: message.head, days: message.days, ends: message.ends });
    for (const each of [one, other]) each.put(each.value);
  }

  function told(message) { // moved from Python
    grown(message);
    one.put(message.position);
    compare.checked = message.compare !== null;
    if (compare.checked) other.put(message.compare);
    moved();
  }

  return () => { clearTimeout(rest); page.close(); };
}

export default { render };
