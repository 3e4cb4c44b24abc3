/** Plays a short, soft sound, to check the loudspeaker. */
export async function playTestSound(): Promise<void> {
  const context = new AudioContext();
  await context.resume();
  const gain = context.createGain();
  gain.connect(context.destination);
  gain.gain.setValueAtTime(0, context.currentTime);
  gain.gain.linearRampToValueAtTime(0.2, context.currentTime + 0.05);
  gain.gain.linearRampToValueAtTime(0, context.currentTime + 0.8);
  const tone = context.createOscillator();
  tone.frequency.value = 523.25;
  tone.connect(gain);
  tone.onended = () => void context.close();
  tone.start();
  tone.stop(context.currentTime + 0.8);
}
