// Requests to the service: the token, waiting when it is busy, one shape of error.

export class Refused extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

let asking = null; // one dialog for all requests that need a token

async function token() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token"), text = document.getElementById("token-text");
    text.value = "";
    dialog.addEventListener("close", () => { sessionStorage.setItem("token", text.value.trim()); asking = null; resolve(); }, { once: true });
    dialog.showModal();
  });
  return asking;
}

export async function ask(url, options = {}) {
  for (let tries = 0; ; tries++) {
    const bearer = sessionStorage.getItem("token");
    const headers = { ...(options.headers ?? {}), ...(bearer ? { Authorization: `Bearer ${bearer}` } : {}) };
    let answer;
    try {
      answer = await fetch(url, { ...options, headers });
    } catch {
      throw new Refused(0, "The service does not answer. Is it running, and this device online?");
    }
    if (answer.ok) return answer;
    if (answer.status === 401) { await token(); continue; }
    if ((answer.status === 429 || answer.status === 503) && tries < 20) {
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      await new Promise((go) => setTimeout(go, 1000 * seconds));
      continue;
    }
    const problem = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, problem.detail ?? `The service answered ${answer.status}.`);
  }
}

export async function models() { return (await ask("v1/models")).json(); }

export async function predict(model, files) {
  const form = new FormData();
  for (const file of files) form.append("images", file, file.name || "image");
  const answer = await ask(`v1/predict?explain=1&model=${encodeURIComponent(model)}`, { method: "POST", body: form });
  return answer.json();
}

export async function examples() {
  const { examples: names } = await (await ask("v1/examples")).json();
  return Promise.all(names.map(async (name, i) => {
    const blob = await (await ask(`v1/examples/${i}`)).blob();
    return new File([blob], name, { type: blob.type });
  }));
}
