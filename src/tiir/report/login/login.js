"use strict";
document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const status = document.getElementById("status");
  try {
    const answer = await fetch("/api/login", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Tiir": "1" },
      body: JSON.stringify({ token: document.getElementById("token").value.trim() }),
    });
    if (answer.ok) return location.replace("/" + location.hash);
    const told = await answer.json();
    status.textContent = [told.error, told.hint].filter(Boolean).join(". ");
  } catch {
    status.textContent = "The server does not answer.";
  }
});
