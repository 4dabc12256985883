// The time machine: two handles over the log, each a slider, a number and a day that move together. A handle's value is
// a position; where the machine goes by what occurred, it is the number of a day in the list of days.

const REST = 200; // ms without a move, after which rows and difference are asked for
const WEEK = 7;

function render({ model, el }) {
  const log = { ...model.get("start") };
  const page = live(model, el, told);
  const counts = make("div", { class: "cqrs-lab-page cqrs-lab-counts" });
  const rows = make("div", { class: "cqrs-lab-page cqrs-lab-rows" });
  let byDay = log.by === "occurred"; // of what occurred
  const name = `cqrs-lab-by-${Math.random().toString(36).slice(2)}`;
  const recorded = choice("recorded: what was known then", false);
  const occurred = choice("occurred: what was true then", true);
  const by = make("fieldset", {}, make("legend", {}, "go by"), ...[recorded, occurred].map((one) => one.box));
  const one = handle("position");
  const other = handle("other position");
  const compare = make("input", { type: "checkbox", onchange: () => moved() });
  compare.checked = log.compare !== null && log.compare !== undefined;
  const compared = beside("compare two positions", compare);
  const keys = make("p");
  const row = make("div", { class: "cqrs-lab-row" }, compared);
  page.body.append(by, one.box, row, other.box, keys, page.trouble, counts, rows);
  other.box.hidden = !compare.checked;
  let rest = 0;
  put(log);
  moved();

  function beside(label, control) {
    const box = named(label, control);
    box.classList.add("cqrs-lab-beside");
    return box;
  }

  function choice(label, days) {
    const radio = make("input", { type: "radio", name, onchange: () => switched(days) });
    return { radio, box: beside(label, radio) };
  }

  function put(start) { // both handles where they start, or where Python moved them
    byDay = start.by === "occurred";
    recorded.radio.checked = !byDay;
    occurred.radio.checked = byDay;
    keys.textContent = byDay
      ? "Keys on a slider: ← → one day, Page Up and Page Down seven days, Home and End all days."
      : "Keys on a slider: ← → one event, Page Up and Page Down one day, Home and End the whole log.";
    const value = (at) => (byDay ? last(log.occurred, at) : at);
    one.put(value(start.position));
    other.put(start.compare === null || start.compare === undefined ? top() : value(start.compare));
  }

  function switched(days) { // each handle stays at its day
    if (days === byDay) return;
    const at = [one, other].map((each) => each.date());
    const there = at.map((day) => (days ? day : log.ends[last(log.days, day)] ?? 0));
    put({ by: days ? "occurred" : "recorded", position: there[0], compare: there[1] });
    moved();
  }

  function top() {
    return byDay ? Math.max(0, log.occurred.length - 1) : log.head;
  }

  function last(days, day) { // the number of the last day that is not after it
    return Math.max(days === log.occurred ? 0 : -1, days.filter((each) => each <= day).length - 1);
  }

  function dayAt(position) { // the first day by whose end the position was recorded
    let low = 0, high = log.ends.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (log.ends[middle] < position) low = middle + 1; else high = middle;
    }
    return low;
  }

  function handle(name) {
    const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": `${name} in the log` });
    const number = make("input", { type: "number", min: 0, step: 1 });
    const day = make("input", { type: "date" });
    const said = make("output", { "aria-hidden": "true" });
    const me = { value: 0, name };

    function put(value) {
      me.value = Math.max(0, Math.min(top(), Math.round(Number(value) || 0)));
      const days = byDay ? log.occurred : log.days;
      const date = me.date();
      for (const field of [slider, number]) field.max = top();
      slider.value = number.value = me.value;
      numbered.hidden = byDay;
      day.min = days[0] ?? "";
      day.max = days.at(-1) ?? "";
      if (day.value !== date) day.value = date;
      const words = byDay
        ? (date ? `all that occurred until ${date}` : "before the first event")
        : `position ${me.value.toLocaleString("en")} of ${log.head.toLocaleString("en")}` +
          (date ? `, recorded on ${date}` : ", before the first event");
      said.textContent = words;
      slider.setAttribute("aria-valuetext", words);
    }

    function step(days, wide = 1) { // to the end of the day before, or of the day after
      if (byDay) return jump(me.value + days * wide);
      const at = dayAt(me.value);
      const ended = log.ends[at] === me.value;
      const to = me.value ? at + (days > 0 ? (ended ? 1 : 0) : -1) : (days > 0 ? 0 : -1);
      jump(to < 0 ? 0 : log.ends[Math.min(to, log.ends.length - 1)] ?? log.head);
    }

    function jump(value) {
      put(value);
      moved();
    }

    slider.addEventListener("input", () => jump(slider.value));
    slider.addEventListener("keydown", (event) => {
      const days = { PageUp: 1, PageDown: -1 }[event.key];
      if (!days) return;
      event.preventDefault();
      step(days, WEEK);
    });
    number.addEventListener("change", () => jump(number.value));
    day.addEventListener("change", () => {
      if (!day.value) return;
      if (byDay) return jump(last(log.occurred, day.value));
      // The last day that is not after it; before the first one nothing was recorded.
      const at = last(log.days, day.value);
      jump(at < 0 ? 0 : log.ends[at]);
    });
    const first = name === "position";
    const numbered = named(first ? "position" : "from position", number);
    me.box = make("div", { role: "group", "aria-label": `${name}: slider, number and day` },
      make("div", { class: "cqrs-lab-row" },
        make("div", { class: "cqrs-lab-wide" }, slider),
        numbered,
        named(first ? "day" : "from day", day),
        make("button", { type: "button", onclick: () => step(-1) }, first ? "a day back" : "from a day earlier"),
        make("button", { type: "button", onclick: () => step(1) }, first ? "a day on" : "from a day later"),
        said));
    me.date = () => (byDay ? log.occurred[me.value] : me.value ? log.days[dayAt(me.value)] : "") ?? "";
    me.told = () => (byDay ? log.occurred[me.value] ?? 0 : me.value); // without events there is position 0 alone
    me.put = put;
    return me;
  }

  function moved() {
    other.box.hidden = !compare.checked;
    rows.classList.add("cqrs-lab-late");
    page.ask({ ask: "counts", position: one.told() }, (answer) => {
      if (answer.counts !== undefined) counts.innerHTML = answer.counts;
      clearTimeout(rest); // counted from the answer, so that a slow machine does not ask for rows between two steps
      rest = setTimeout(rested, REST);
    });
    clearTimeout(rest);
  }

  function rested() {
    const since = compare.checked ? other.told() : null;
    const question = { ask: "rows", position: one.told(), compare: since, head: log.head };
    page.ask(question, (answer) => {
      if (answer.head !== undefined) grown(answer);
      if (answer.rows === undefined || one.told() !== question.position) return;
      rows.innerHTML = answer.rows;
      rows.classList.remove("cqrs-lab-late");
    });
  }

  function grown(message) {
    const at = byDay ? [one, other].map((each) => each.date()) : null; // a late event may bring a day in between
    Object.assign(log, { head: message.head, days: message.days, ends: message.ends, occurred: message.occurred });
    [one, other].forEach((each, n) => each.put(at ? last(log.occurred, at[n]) : each.value));
  }

  function told(message) { // moved from Python
    grown(message);
    compare.checked = message.compare !== null;
    put({ ...message, compare: message.compare ?? (message.by === "occurred" ? log.occurred.at(-1) : log.head) });
    moved();
  }

  return () => { clearTimeout(rest); page.close(); };
}

export default { render };
