// The order console: a form for each thing that can be done to an order, and tables of what came of it.

function render({ model, el }) {
  const { forms, labels, filled } = model.get("start");
  const page = live(model, el);
  const name = `cqrs-lab-do-${Math.random().toString(36).slice(2)}`;
  const said = make("div", { role: "status", class: "cqrs-lab-said" });
  const shown = make("div", { class: "cqrs-lab-page" });
  const fields = {};
  const boxes = {};
  for (const [key, value] of Object.entries(filled)) {
    fields[key] = make("input", { type: "text", value, size: key === "reason" ? 24 : 10, autocomplete: "off" });
    boxes[key] = named(labels[key], fields[key]);
  }
  const choices = Object.keys(forms).map((one, at) => {
    const radio = make("input", { type: "radio", name, value: one, onchange: chosen });
    radio.checked = at === 0;
    const box = named(one, radio);
    box.classList.add("cqrs-lab-beside");
    return box;
  });
  const send = make("button", { type: "submit", class: "cqrs-lab-first" }, "send the command");
  const move = make("button", { type: "button", onclick: () => asked({ ask: "catch up" }, true) }, "move the read models");
  const form = make("form", { "aria-label": "a command to send" },
    make("fieldset", {}, make("legend", {}, "What to do"), ...choices),
    make("div", { class: "cqrs-lab-row" }, ...Object.values(boxes), send, move));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const values = Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.value]));
    asked({ ask: "send", do: picked(), fields: values }, true);
  });
  form.addEventListener("keydown", (event) => { // JupyterLab takes from Enter that it sends a form
    if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
    event.preventDefault();
    form.requestSubmit();
  });
  page.body.append(form, said, page.trouble, shown);
  chosen();

  function picked() { return form.querySelector("input[type=radio]:checked").value; }

  function chosen() {
    const needed = ["order_id", ...forms[picked()]];
    for (const [key, box] of Object.entries(boxes)) box.hidden = !needed.includes(key);
  }

  let late = false;
  function asked(question, all = false, then = () => {}) {
    page.ask({ ...question, order_id: fields.order_id.value.trim() }, (answer) => {
      if (!answer.quiet || answer.alert) said.textContent = answer.said ?? "";
      if (answer.page !== undefined && shown.innerHTML !== answer.page) shown.innerHTML = answer.page;
      late = Boolean(answer.late);
      if (!answer.closed) then();
    }, all);
  }

  const stop = repeat(page, (again) => asked({ ask: "state" }, false, () => again(late ? 500 : 2000)));
  return () => { stop(); page.close(); };
}

export default { render };
