// Dark or light, as the system has it until somebody chooses.

const KEY = "edge-hal-theme";

export function keptTheme() {
  if (localStorage.getItem(KEY)) document.documentElement.dataset.theme = localStorage.getItem(KEY);
}

export function toggleTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  document.documentElement.dataset.theme = shown === "dark" ? "light" : "dark";
  localStorage.setItem(KEY, document.documentElement.dataset.theme);
}
