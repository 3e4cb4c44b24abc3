import { useEffect, useRef, useState } from 'react';
import { RoomAudioRenderer, RoomContext, useConnectionState, useTracks } from '@livekit/components-react';
import { ConnectionState, RoomEvent, Track } from 'livekit-client';

import type { Visit } from '../../sdk';
import { Chat, useChatMessages } from './Chat';
import { Controls } from './Controls';
import { People } from './People';
import { Tile } from './Tile';

/** Which side panel is open. */
export type Panel = 'chat' | 'people' | undefined;

interface Props {
  visit: Visit;
  title: string;
  notice: string | undefined;
  onLeave: () => void;
}

export function VisitPage(props: Props) {
  return (
    <RoomContext.Provider value={props.visit.room}>
      <Stage {...props} />
      <RoomAudioRenderer />
    </RoomContext.Provider>
  );
}

function Stage({ visit, title, notice, onLeave }: Props) {
  const [panel, setPanel] = useState<Panel>();
  const [problem, setProblem] = useState<string>();
  const [refusal, setRefusal] = useState<string>();
  const connection = useConnectionState();
  const announcement = useComingsAndGoings(visit);
  const chat = useChatMessages(visit, panel === 'chat');
  const tracks = useTracks(
    [
      { source: Track.Source.ScreenShare, withPlaceholder: false },
      { source: Track.Source.Camera, withPlaceholder: true },
    ],
    { onlySubscribed: false },
  );

  useEffect(
    () =>
      visit.onTrackRefused((reason) =>
        setRefusal(`The visit did not take your camera or microphone${reason ? `: ${reason}` : '.'}`),
      ),
    [visit],
  );

  return (
    <div className={panel ? 'visit with-panel' : 'visit'}>
      <h1 className="visually-hidden">{title ? `Visit ${title}` : 'Visit'}</h1>
      <div className="banners">
        {!visit.e2ee && (
          <p className="banner danger" role="alert">
            This visit is not end-to-end encrypted.
          </p>
        )}
        {refusal && (
          <p className="banner danger" role="alert" data-testid="refusal">
            {refusal}
          </p>
        )}
        {(problem ?? notice) && (
          <p className="banner warning" role="alert">
            {problem ?? notice}
          </p>
        )}
        {connection !== ConnectionState.Connected && (
          <p className="banner warning" role="status">
            The connection was interrupted. Reconnecting …
          </p>
        )}
      </div>
      <main className="grid" data-count={Math.min(tracks.length, 9)} aria-label="Participants' video">
        {tracks.map((track) => (
          <Tile
            key={`${track.participant.identity}/${track.source}/${track.publication?.trackSid ?? ''}`}
            track={track}
            e2ee={visit.e2ee}
          />
        ))}
      </main>
      {panel === 'chat' && <Chat chat={chat} encrypted={visit.e2ee !== undefined} onClose={() => setPanel(undefined)} />}
      {panel === 'people' && <People visit={visit} onClose={() => setPanel(undefined)} />}
      <Controls
        panel={panel}
        unread={chat.unread}
        onPanel={(next) => setPanel((now) => (now === next ? undefined : next))}
        onProblem={setProblem}
        onLeave={onLeave}
      />
      <p className="visually-hidden" role="status" aria-live="polite">
        {announcement}
      </p>
    </div>
  );
}

/** The latest arrival or departure, in words, for the live region. */
function useComingsAndGoings(visit: Visit): string {
  const [text, setText] = useState('');
  const count = useRef(0);
  useEffect(() => {
    const { room } = visit;
    // A zero-width space makes two equal announcements in a row differ, so that both are read.
    const say = (words: string) => setText(words + '\u200b'.repeat(count.current++ % 2));
    const joined = (participant: { name?: string; identity: string }) =>
      say(`${participant.name || participant.identity} joined the visit.`);
    const left = (participant: { name?: string; identity: string }) =>
      say(`${participant.name || participant.identity} left the visit.`);
    room.on(RoomEvent.ParticipantConnected, joined).on(RoomEvent.ParticipantDisconnected, left);
    return () => {
      room.off(RoomEvent.ParticipantConnected, joined).off(RoomEvent.ParticipantDisconnected, left);
    };
  }, [visit]);
  return text;
}
