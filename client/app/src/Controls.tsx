import { useEffect, useRef } from 'react';
import { useLocalParticipant } from '@livekit/components-react';

import { explainDeviceError } from '../../sdk';
import { Icon } from './Icon';
import type { Panel } from './VisitPage';

interface Props {
  panel: Panel;
  unread: number;
  onPanel: (panel: Exclude<Panel, undefined>) => void;
  onProblem: (problem: string | undefined) => void;
  onLeave: () => void;
}

/** Shortcuts hold Alt, so that they never collide with typing or a screen reader's single keys. */
const SHORTCUTS = [
  ['KeyM', 'M', 'Microphone on or off'],
  ['KeyV', 'V', 'Camera on or off'],
  ['KeyS', 'S', 'Share your screen, or stop'],
  ['KeyC', 'C', 'Open or close the messages'],
  ['KeyP', 'P', 'Open or close the list of people'],
  ['KeyL', 'L', 'Leave the visit'],
] as const;

export function Controls({ panel, unread, onPanel, onProblem, onLeave }: Props) {
  const { localParticipant, isMicrophoneEnabled, isCameraEnabled, isScreenShareEnabled } = useLocalParticipant();
  const help = useRef<HTMLDialogElement>(null);
  const mayPublish = localParticipant.permissions?.canPublish ?? true;
  const mayShare = mayPublish && typeof navigator.mediaDevices?.getDisplayMedia === 'function';

  const attempt = async (device: 'camera' | 'microphone' | 'screen', change: () => Promise<unknown>) => {
    try {
      await change();
      onProblem(undefined);
    } catch (error) {
      onProblem(explainDeviceError(error, device));
    }
  };
  const microphone = () =>
    attempt('microphone', () => localParticipant.setMicrophoneEnabled(!localParticipant.isMicrophoneEnabled));
  const camera = () => attempt('camera', () => localParticipant.setCameraEnabled(!localParticipant.isCameraEnabled));
  const screen = () =>
    attempt('screen', () =>
      localParticipant.setScreenShareEnabled(!localParticipant.isScreenShareEnabled, { audio: false }),
    );

  useEffect(() => {
    const actions: Record<(typeof SHORTCUTS)[number][0], () => void> = {
      KeyM: () => void (mayPublish && microphone()),
      KeyV: () => void (mayPublish && camera()),
      KeyS: () => void (mayShare && screen()),
      KeyC: () => onPanel('chat'),
      KeyP: () => onPanel('people'),
      KeyL: onLeave,
    };
    const onKey = (event: KeyboardEvent) => {
      if (!event.altKey || event.ctrlKey || event.metaKey || event.repeat || !(event.code in actions)) {
        return;
      }
      event.preventDefault();
      actions[event.code as keyof typeof actions]();
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  });

  return (
    <nav className="controls" aria-label="Visit controls">
      {mayPublish && (
        <>
          <button type="button" aria-pressed={isMicrophoneEnabled} aria-keyshortcuts="Alt+M" onClick={() => void microphone()}>
            <Icon name={isMicrophoneEnabled ? 'mic' : 'mic-off'} />
            <span>Microphone</span>
          </button>
          <button type="button" aria-pressed={isCameraEnabled} aria-keyshortcuts="Alt+V" onClick={() => void camera()}>
            <Icon name={isCameraEnabled ? 'camera' : 'camera-off'} />
            <span>Camera</span>
          </button>
        </>
      )}
      {mayShare && (
        <button type="button" aria-pressed={isScreenShareEnabled} aria-keyshortcuts="Alt+S" onClick={() => void screen()}>
          <Icon name="screen" />
          <span>Share screen</span>
        </button>
      )}
      <button type="button" aria-expanded={panel === 'chat'} aria-keyshortcuts="Alt+C" onClick={() => onPanel('chat')}>
        <Icon name="chat" />
        <span>Messages{unread > 0 ? ` (${unread} new)` : ''}</span>
      </button>
      <button type="button" aria-expanded={panel === 'people'} aria-keyshortcuts="Alt+P" onClick={() => onPanel('people')}>
        <Icon name="people" />
        <span>People</span>
      </button>
      <button type="button" onClick={() => help.current?.showModal()}>
        <Icon name="keys" />
        <span>Shortcuts</span>
      </button>
      <button type="button" className="leave" aria-keyshortcuts="Alt+L" onClick={onLeave}>
        <Icon name="leave" />
        <span>Leave</span>
      </button>
      <dialog ref={help} aria-label="Keyboard shortcuts">
        <h2>Keyboard shortcuts</h2>
        <dl>
          {SHORTCUTS.map(([code, key, what]) => (
            <div key={code}>
              <dt>
                <kbd>Alt</kbd> + <kbd>{key}</kbd>
              </dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
        <form method="dialog">
          <button className="primary">Close</button>
        </form>
      </dialog>
    </nav>
  );
}
