// The advice: a field for each part of a load; the answer follows what is typed.

const LABELS = {
  reads: "reads a second", writes: "writes a second", events: "events in the log", staleness: "seconds it may be old",
};

function render({ model, el }) {
  const { load, questions } = model.get("start");
  const page = live(model, el);
  const name = `cqrs-lab-question-${Math.random().toString(36).slice(2)}`;
  const shown = make("div", { class: "cqrs-lab-page", "aria-live": "polite" });
  const fields = {};
  const boxes = Object.entries(LABELS).map(([key, label]) => {
    const whole = key === "events";
    fields[key] = make("input", { type: "number", min: whole ? 1 : 0, step: whole ? 1 : "any", value: load[key], oninput: asked });
    return named(label, fields[key]);
  });
  // Radio buttons: a list that drops down would give the keyboard back to the notebook when it closes.
  const choices = questions.map((one) => {
    const radio = make("input", { type: "radio", name, value: one, onchange: asked });
    radio.checked = one === load.question;
    const box = named(one, radio);
    box.classList.add("cqrs-lab-beside");
    return box;
  });
  const group = make("fieldset", {}, make("legend", {}, "question"), ...choices);
  page.body.append(make("div", { class: "cqrs-lab-row" }, ...boxes), group, page.trouble, shown);
  asked();

  function asked() {
    const now = Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.value]));
    now.question = group.querySelector("input:checked").value;
    page.ask({ ask: "advice", load: now }, (answer) => {
      if (answer.page !== undefined) shown.innerHTML = answer.page;
    });
  }

  return () => page.close();
}

export default { render };
