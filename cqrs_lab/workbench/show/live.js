// What the pages of the workbench share. A page asks its kernel one question at a time; of questions of one kind that
// wait, the latest alone is asked. The page can be seen once the kernel has answered, and hides its picture then.

const PATIENCE = 6000; // ms without an answer, after which the page says so

function make(tag, attributes = {}, ...children) {
  const one = document.createElement(tag);
  // Keeps the notebook's shortcuts away. It looks at what has the focus before what that is in, so each one says so.
  one.setAttribute("data-lm-suppress-shortcuts", "true");
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) one.addEventListener(name.slice(2), value);
    else if (name in one && typeof value === "boolean") one[name] = value;
    else one.setAttribute(name, value);
  }
  one.append(...children);
  return one;
}

let made = 0;

// A control with its name beside it, joined so that a screen reader says the name.
function named(label, control) {
  control.id ||= `cqrs-lab-${++made}-${Math.random().toString(36).slice(2)}`;
  return make("label", { class: "cqrs-lab-named", for: control.id }, make("span", {}, label), control);
}

function live(model, el, told = () => {}) {
  const me = Math.random().toString(36).slice(2);
  // Each page places this where its reader looks.
  const trouble = make("div", { class: "cqrs-lab-trouble" });
  const status = make("div", { role: "status", class: "cqrs-lab-status" });
  const body = make("div");
  const root = make("div", { class: "cqrs-lab", hidden: true }, body, status);
  el.append(root);
  let count = 0, asked = null, timer = 0, closed = false;
  const queue = [];

  function wake(awake) {
    root.hidden = !awake;
    root.classList.toggle("cqrs-lab-live", awake);
  }

  function next() {
    if (asked || closed || !queue.length) return;
    asked = queue.shift();
    asked.question.id = `${me}-${++count}`;
    timer = setTimeout(() => {
      status.textContent = "The kernel does not answer: it is busy, or it was started again. If so, run this cell again.";
    }, PATIENCE);
    model.send(asked.question);
  }

  function heard(message) {
    if (message.id === undefined) return told(message);
    if (!asked || message.id !== asked.question.id) return;
    clearTimeout(timer);
    status.textContent = "";
    const { then } = asked;
    asked = null;
    // An alert stays until something else was asked for with success.
    if (message.alert) trouble.replaceChildren(make("p", { role: "alert" }, message.alert));
    else if (!message.quiet) trouble.replaceChildren();
    then(message);
    next();
  }

  function ask(question, then = () => {}, all = false) {
    const at = all ? -1 : queue.findIndex((other) => other.question.ask === question.ask);
    if (at >= 0) queue[at] = { question, then };
    else queue.push({ question, then });
    next();
  }

  function gone() {
    // The kernel was restarted: the picture comes back and says how to wake the page.
    wake(false);
    close();
  }

  function close() {
    closed = true;
    clearTimeout(timer);
    model.off("msg:custom", heard);
    model.off("comm_live_update", gone);
    model.off("destroy", gone);
  }

  model.on("msg:custom", heard);
  model.on("comm_live_update", gone);
  model.on("destroy", gone);
  ask({ ask: "hello" }, () => wake(true));
  return { root, body, trouble, ask, close, isClosed: () => closed };
}

// Asks again and again while the page can be seen; `each` returns how many ms to wait.
function repeat(page, each) {
  let timer = 0;
  const again = (ms) => { timer = setTimeout(round, ms); };
  function round() {
    if (page.isClosed()) return;
    if (!page.root.isConnected || document.hidden) return again(1000);
    each(again);
  }
  again(0);
  return () => clearTimeout(timer);
}
