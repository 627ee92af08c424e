// Pictures from the camera, one at a press.

export function camera(take) {
  const dialog = document.getElementById("camera"), video = dialog.querySelector("video");
  const error = document.getElementById("camera-error"), snap = document.getElementById("snap"), turn = document.getElementById("turn");
  let stream = null, facing = "environment";

  function stop() { stream?.getTracks().forEach((track) => track.stop()); stream = null; video.srcObject = null; }

  async function start() {
    stop();
    error.textContent = "";
    snap.disabled = true;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: 1280 } }, audio: false });
      if (!dialog.open) { stop(); return; }
      video.srcObject = stream;
      await video.play();
      snap.disabled = false;
      const all = await navigator.mediaDevices.enumerateDevices();
      turn.hidden = all.filter((d) => d.kind === "videoinput").length < 2;
    } catch (why) {
      error.textContent = why.name === "NotAllowedError" ? "The browser does not let this page use the camera." : "There is no camera that this page can use.";
    }
  }

  snap.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => take([new File([blob], `camera ${new Date().toLocaleTimeString()}.jpg`, { type: "image/jpeg" })]), "image/jpeg", 0.95);
  });
  turn.addEventListener("click", () => { facing = facing === "user" ? "environment" : "user"; start(); });
  dialog.querySelector("button[value=close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
  return () => {
    if (!navigator.mediaDevices?.getUserMedia) return "Browsers give the camera to pages on https or on this machine only.";
    dialog.showModal();
    start();
    return "";
  };
}
