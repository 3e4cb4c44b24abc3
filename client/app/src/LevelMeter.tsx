import { useEffect, useRef } from 'react';

/** Shows how loud a microphone is. */
export function LevelMeter({ track }: { track: MediaStreamTrack }) {
  const meter = useRef<HTMLMeterElement>(null);
  useEffect(() => {
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    analyser.fftSize = 512;
    const source = context.createMediaStreamSource(new MediaStream([track]));
    source.connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const timer = window.setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      let sum = 0;
      for (const sample of samples) {
        sum += sample * sample;
      }
      // -60 dBFS and less is silence, 0 dBFS is full.
      const decibel = 10 * Math.log10(sum / samples.length + 1e-12);
      if (meter.current) {
        meter.current.value = Math.max(0, Math.min(1, 1 + decibel / 60));
      }
    }, 100);
    return () => {
      window.clearInterval(timer);
      source.disconnect();
      void context.close();
    };
  }, [track]);
  return <meter ref={meter} className="level" min={0} max={1} aria-label="Microphone level" />;
}
