// New notes appear as they are written, in every open page of the same person.
const list = document.querySelector("ul.notes");
const state = document.querySelector("#live");
const events = new EventSource("/notes/events");
events.addEventListener("hello", () => { state.textContent = "Live: new notes appear by themselves."; });
events.addEventListener("note", (event) => {
  const note = JSON.parse(event.data);
  if (document.getElementById(`note-${note.id}`)) return;
  const item = document.createElement("li");
  item.id = `note-${note.id}`;
  const text = document.createElement("p");
  text.textContent = note.text;
  item.append(text);
  list.prepend(item);
});
events.addEventListener("error", () => { state.textContent = "Not live: the connection is gone."; });
