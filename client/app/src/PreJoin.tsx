import { useEffect, useId, useRef, useState } from 'react';
import { createLocalAudioTrack, createLocalVideoTrack, VideoPresets } from 'livekit-client';
import type { LocalAudioTrack, LocalVideoTrack } from 'livekit-client';

import { explainDeviceError } from '../../sdk';
import { Icon } from './Icon';
import { LevelMeter } from './LevelMeter';
import type { VisitLink } from './link';
import { playTestSound } from './testSound';

/** What a participant chose before joining. */
export interface Choice {
  name: string;
  audio: LocalAudioTrack | undefined;
  video: LocalVideoTrack | undefined;
}

interface Props {
  link: VisitLink;
  busy: boolean;
  /** The name of an earlier attempt. */
  initialName: string | undefined;
  error: string | undefined;
  onJoin: (choice: Choice) => void;
}

export function PreJoin({ link, busy, initialName, error, onJoin }: Props) {
  const named = link.facts?.name ?? '';
  const fixedName = named !== '' && !link.facts?.mayRename;
  const mayPublish = link.facts?.mayPublish ?? true;
  const [name, setName] = useState(initialName ?? named);
  const camera = useDevice('camera', mayPublish);
  const microphone = useDevice('microphone', mayPublish);
  const nameId = useId();

  return (
    <main className="card pre-join">
      <h1>Join the visit</h1>
      {link.unencrypted && (
        <p className="banner danger" role="alert">
          This visit is not end-to-end encrypted.
        </p>
      )}
      {error && (
        <p className="banner danger" role="alert">
          {error}
        </p>
      )}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          onJoin({ name: name.trim(), audio: microphone.take(), video: camera.take() });
        }}
      >
        <div className="field">
          <label htmlFor={nameId}>Your name</label>
          <input
            id={nameId}
            value={name}
            onChange={(event) => setName(event.target.value)}
            readOnly={fixedName}
            required
            maxLength={80}
            autoComplete="name"
          />
        </div>

        {mayPublish && (
          <>
            <div className="preview">
              {camera.track ? (
                <Preview track={camera.track as LocalVideoTrack} />
              ) : (
                <p className="muted">{camera.wanted ? 'Starting the camera …' : 'Your camera is off.'}</p>
              )}
            </div>
            <DeviceFields device={camera} label="Camera" />
            <DeviceFields device={microphone} label="Microphone">
              {microphone.track && <LevelMeter track={microphone.track.mediaStreamTrack} />}
            </DeviceFields>
            <button type="button" className="quiet" onClick={() => void playTestSound()}>
              Play a test sound
            </button>
          </>
        )}
        <button type="submit" className="primary" disabled={busy}>
          {busy ? 'Joining …' : 'Join'}
        </button>
      </form>
      {!link.unencrypted && (
        <p className="hint">
          <Icon name="lock" /> Your camera, microphone and messages are encrypted on this device. Only the
          people in the visit can decrypt them.
        </p>
      )}
    </main>
  );
}

type Kind = 'camera' | 'microphone';
type TrackOf<K extends Kind> = K extends 'camera' ? LocalVideoTrack : LocalAudioTrack;

interface Device {
  kind: Kind;
  wanted: boolean;
  setWanted: (wanted: boolean) => void;
  deviceId: string;
  setDeviceId: (id: string) => void;
  devices: MediaDeviceInfo[];
  track: LocalAudioTrack | LocalVideoTrack | undefined;
  error: string | undefined;
}

/** A camera or microphone that runs while it is wanted. */
function useDevice<K extends Kind>(kind: K, allowed: boolean) {
  const [wanted, setWanted] = useState(allowed);
  const [deviceId, setDeviceId] = useState('');
  const [devices, setDevices] = useState<MediaDeviceInfo[]>([]);
  const [track, setTrack] = useState<LocalAudioTrack | LocalVideoTrack>();
  const [error, setError] = useState<string>();
  const taken = useRef(false);

  useEffect(() => {
    if (!wanted) {
      return;
    }
    let current: LocalAudioTrack | LocalVideoTrack | undefined;
    let over = false;
    const start = async () => {
      try {
        const id = deviceId === '' ? {} : { deviceId };
        current =
          kind === 'camera'
            ? await createLocalVideoTrack({ ...id, resolution: VideoPresets.h720.resolution })
            : await createLocalAudioTrack({ ...id, echoCancellation: true, noiseSuppression: true });
        if (over) {
          current.stop();
          return;
        }
        setTrack(current);
        setError(undefined);
        const all = await navigator.mediaDevices.enumerateDevices();
        setDevices(all.filter((device) => device.kind === (kind === 'camera' ? 'videoinput' : 'audioinput')));
      } catch (cause) {
        if (!over) {
          setError(explainDeviceError(cause, kind));
          setWanted(false);
        }
      }
    };
    void start();
    return () => {
      over = true;
      setTrack(undefined);
      if (!taken.current) {
        current?.stop();
      }
    };
  }, [kind, wanted, deviceId]);

  /** Hands the running track over to the visit. */
  const take = (): TrackOf<K> | undefined => {
    taken.current = true;
    return track as TrackOf<K> | undefined;
  };
  return { kind, wanted, setWanted, deviceId, setDeviceId, devices, track, error, take };
}

function DeviceFields({
  device,
  label,
  children,
}: {
  device: Device;
  label: string;
  children?: React.ReactNode;
}) {
  const switchId = useId();
  const errorId = useId();
  return (
    <fieldset className="device">
      <legend>{label}</legend>
      <label className="switch" htmlFor={switchId}>
        <input
          id={switchId}
          type="checkbox"
          checked={device.wanted}
          aria-describedby={device.error ? errorId : undefined}
          onChange={(event) => device.setWanted(event.target.checked)}
        />
        Join with {label.toLowerCase()} on
      </label>
      {device.devices.length > 0 && device.wanted && (
        <select
          aria-label={`${label} to use`}
          value={device.deviceId}
          onChange={(event) => device.setDeviceId(event.target.value)}
        >
          <option value="">Default</option>
          {device.devices
            .filter(({ deviceId }) => deviceId !== '' && deviceId !== 'default')
            .map(({ deviceId, label: name }, index) => (
              <option key={deviceId} value={deviceId}>
                {name || `${label} ${index + 1}`}
              </option>
            ))}
        </select>
      )}
      {children}
      {device.error && (
        <p id={errorId} className="problem" role="alert">
          {device.error}
        </p>
      )}
    </fieldset>
  );
}

function Preview({ track }: { track: LocalVideoTrack }) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const element = video.current;
    if (!element) {
      return;
    }
    track.attach(element);
    return () => {
      track.detach(element);
    };
  }, [track]);
  return <video ref={video} className="mirrored" muted playsInline aria-label="Your camera's picture" />;
}
