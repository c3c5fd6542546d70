// A form per model, made from openapi.json, so that it is as true as that is.
"use strict";

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

const forms = (schema) => (schema.anyOf ? schema.anyOf.flatMap(forms) : [schema]);

const allowed = (schema) =>
  forms(schema).map((form) => {
    if (form.enum) return form.enum.map((value) => JSON.stringify(value)).join(", ");
    const limits = [form.minimum, form.maximum].map((limit) => (Math.abs(limit) < 1e18 ? limit : ""));
    return form.type + (limits.join("") ? ` ${limits[0]} to ${limits[1]}` : "");
  }).join(" or ");

// What was typed, as JSON wherever the field takes more than texts: 3 is a number, true a boolean, and the rest a text.
const typed = (text, schema) => {
  const texts = forms(schema).flatMap((form) => form.enum ?? []);
  if (texts.includes(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
};

const field = (name, schema, example, required) => {
  const input = element("input", {name, value: example === undefined || example === null ? "" : String(example)});
  const note = [allowed(schema), schema.description].filter(Boolean).join(". ");
  return element("tr", {}, element("th", {}, name + (required ? " *" : "")), element("td", {}, input), element("td", {}, note));
};

const ask = async (path, record) => {
  const key = document.getElementById("key").value;
  const headers = {"Content-Type": "application/json", ...(key && {Authorization: `Bearer ${key}`})};
  const answer = await fetch(path, {method: "POST", headers, body: JSON.stringify(record)});
  return `${answer.status}\n${JSON.stringify(await answer.json(), null, 2)}`;
};

const model = (path, operation, schemas) => {
  const reference = operation.requestBody.content["application/json"].schema.$ref;
  const schema = schemas[reference.split("/").pop()];
  const example = (schema.examples ?? [{}])[0];
  const required = new Set(schema.required ?? []);
  const looked = Object.entries(schema.properties).filter(([, each]) => each.type || each.enum || each.anyOf);
  const rows = looked.map(([name, each]) => field(name, each, example[name], required.has(name)));
  const answer = element("pre", {hidden: true});
  const form = element("form", {}, element("table", {}, ...rows), element("button", {}, "Predict"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const filled = [...new FormData(form)].filter(([, text]) => text !== "");
    const record = Object.fromEntries(filled.map(([name, text]) => [name, typed(text, schema.properties[name])]));
    answer.hidden = false;
    answer.textContent = await ask(path, record).catch(String);
  });
  return element("section", {}, element("h2", {}, operation.tags[0]), element("p", {}, operation.summary), form, answer);
};

fetch("/openapi.json").then((answer) => answer.json()).then((found) => {
  const predictions = Object.entries(found.paths).filter(([path]) => path.endsWith("/predict"));
  const sections = predictions.map(([path, each]) => model(path, each.post, found.components.schemas));
  document.getElementById("models").replaceChildren(...(sections.length ? sections : ["No model file yet."]));
});
