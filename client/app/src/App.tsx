import { useCallback, useRef, useState } from 'react';
import { DisconnectReason, RoomEvent } from 'livekit-client';

import { canEncrypt, explainJoinError, prepareVisit } from '../../sdk';
import type { Visit } from '../../sdk';
import { exposeForDiagnosis } from './diagnostics';
import type { LinkError, VisitLink } from './link';
import { PreJoin } from './PreJoin';
import type { Choice } from './PreJoin';
import { VisitPage } from './VisitPage';

type State =
  | { at: 'pre-join'; busy: boolean; attempt: number; name?: string; error?: string }
  | { at: 'visit'; visit: Visit; notice?: string }
  | { at: 'left'; why: string };

export function App({ link }: { link: VisitLink | LinkError }) {
  if (link === 'no-token') {
    return <Notice title="This link is not complete" text="Open the link from your invitation again, in full." />;
  }
  if (link === 'bad-url') {
    return <Notice title="This link is not right" text="Its server address cannot be used. Ask for a new link." />;
  }
  if (!link.unencrypted && link.passphrase === undefined) {
    return (
      <Notice
        title="The encryption key is missing"
        text="This visit is end-to-end encrypted, and its key is the last part of the link, after the # sign. Open the link from your invitation again, in full, or ask for a new one."
      />
    );
  }
  if (!link.unencrypted && !canEncrypt()) {
    return (
      <Notice
        title="This browser cannot join"
        text="It cannot encrypt a visit end to end. Use a current version of Chrome, Edge, Firefox or Safari."
      />
    );
  }
  return <Flow link={link} />;
}

function Flow({ link }: { link: VisitLink }) {
  const [state, setState] = useState<State>({ at: 'pre-join', busy: false, attempt: 0 });
  const leaving = useRef(false);

  const join = useCallback(
    async (choice: Choice) => {
      setState((now) => ({ at: 'pre-join', busy: true, attempt: now.at === 'pre-join' ? now.attempt : 0 }));
      leaving.current = false;
      let visit: Visit | undefined;
      try {
        visit = await prepareVisit({
          url: link.url,
          token: link.token,
          passphrase: link.unencrypted ? undefined : link.passphrase,
        });
        exposeForDiagnosis(visit.room, visit.e2ee);
        await visit.join();
      } catch (cause) {
        await visit?.leave();
        choice.audio?.stop();
        choice.video?.stop();
        const error = explainJoinError(cause, link.facts, Date.now() / 1000);
        // A new attempt gets a new form, which starts the devices again.
        setState((now) => ({
          at: 'pre-join',
          busy: false,
          attempt: now.at === 'pre-join' ? now.attempt + 1 : 0,
          name: choice.name,
          error,
        }));
        return;
      }
      const joined = visit;
      joined.room.once(RoomEvent.Disconnected, (reason) => {
        void joined.leave();
        setState({ at: 'left', why: leaving.current ? 'You left the visit.' : explainEnd(reason) });
      });
      setState({ at: 'visit', visit: joined });
      await enter(joined, choice, (notice) =>
        setState((now) => (now.at === 'visit' ? { ...now, notice } : now)),
      );
    },
    [link],
  );

  switch (state.at) {
    case 'pre-join':
      return (
        <PreJoin
          key={state.attempt}
          link={link}
          busy={state.busy}
          initialName={state.name}
          error={state.error}
          onJoin={(choice) => void join(choice)}
        />
      );
    case 'visit':
      return (
        <VisitPage
          visit={state.visit}
          title={link.facts?.room ?? ''}
          notice={state.notice}
          onLeave={() => {
            leaving.current = true;
            void state.visit.room.disconnect();
          }}
        />
      );
    case 'left':
      return (
        <Notice title="The visit is over for you" text={state.why}>
          <button type="button" className="primary" onClick={() => setState({ at: 'pre-join', busy: false, attempt: 0 })}>
            Join again
          </button>
        </Notice>
      );
  }
}

/** Publishes what was chosen before joining. What fails is said; the visit goes on. */
async function enter(visit: Visit, choice: Choice, say: (notice: string) => void): Promise<void> {
  const { localParticipant } = visit.room;
  if (choice.name !== '' && choice.name !== localParticipant.name && localParticipant.permissions?.canUpdateMetadata) {
    await localParticipant.setName(choice.name).catch(() => say('Your name could not be changed.'));
  }
  for (const track of [choice.audio, choice.video]) {
    if (track) {
      await localParticipant.publishTrack(track).catch(() => {
        track.stop();
        say(`Your ${track.kind === 'audio' ? 'microphone' : 'camera'} could not be added to the visit.`);
      });
    }
  }
}

function explainEnd(reason: DisconnectReason | undefined): string {
  switch (reason) {
    case DisconnectReason.DUPLICATE_IDENTITY:
      return 'The same link was opened somewhere else, and the visit goes on there.';
    case DisconnectReason.PARTICIPANT_REMOVED:
      return 'You were removed from the visit.';
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return 'The visit has ended.';
    case DisconnectReason.SERVER_SHUTDOWN:
      return 'The service was stopped. Join again in a moment.';
    default:
      return 'The connection was lost. Check your internet connection, then join again.';
  }
}

function Notice({ title, text, children }: { title: string; text: string; children?: React.ReactNode }) {
  return (
    <main className="card notice" role="alert">
      <h1>{title}</h1>
      <p>{text}</p>
      {children}
    </main>
  );
}
