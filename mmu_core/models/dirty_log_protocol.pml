/* One page that a guest writes while two owners, one after the other, take it to
 * a destination: seal, clear, copy, acknowledge and take over (INV-10 of
 * dirty/slot_log.h, and the rules at the top of dirty/dirty_log.h).
 *
 * The first owner may die before any of its steps, and so may the second: each
 * leaves the log and the destination as they are, its copy perhaps still under
 * way. An answer may get lost, and the call is made again. Once, the daemon may
 * die between any two steps of a move, and begin anew with the sets as they are.
 *
 * Two locks order the calls: a clear and a takeover hold slots_lock to their
 * ends; a move of pages is made under the log's mu, which a clear lets go before
 * it protects. A seal and an acknowledgement take mu alone: another thread of
 * the first owner makes such calls while a clear goes on.
 *
 * At the end the guest stands still; then each write is in a set, or in the copy
 * that the destination has.
 *
 * Steps that can be left out or moved:
 *   LEAVE_FIRST       a move takes the page out of its old set first
 *   SEAL_REPLACES     a seal forgets what was sealed and not cleared
 *   CLEAR_FORGETS     a clear drops the page instead of taking it into flight
 *   NO_PROTECT        a clear does not protect the page
 *   RETURN_NOTHING    a daemon that begins anew leaves in flight what is there
 *   ACK_LATER         acknowledging an epoch acknowledges the later ones, too
 *   TAKEOVER_FORGETS  a takeover drops what is in flight
 *   NO_FENCE          the former owner may still clear and acknowledge
 *   COPY_FIRST        an owner copies the page before the clear is answered
 *   ACK_FIRST         an owner acknowledges before the copy has arrived
 *   NO_RETRY          an owner goes on after a clear that was not answered
 *   OLD_COPIES        the destination takes the former owner's copies
 */

#define WRITES 2
#define EPOCHS 2 /* 1 and 2 can be sealed */
#define NOBODY 2

/* The guest's page: how often it was written; W of its SPTE. */
byte memory = 0;
bool w = false; /* logging has begun, and everything was sent once */

/* The log. */
bool open = false, sealed = false;
bool flight[EPOCHS + 1] = false;
byte open_epoch = 1;
byte owner = 0;
bool slots = false; /* slots_lock is held */
bool mu = false;    /* DirtyLog::mu_ is held */
bool daemon_may_die = true;
byte answers_to_lose = 1;

/* The destination: whom it refuses, and what it has. */
byte refused = NOBODY;
byte dest = 0;

proctype Guest() {
  byte writes = 0;
  do
  :: writes == WRITES -> break
  :: writes < WRITES ->
    if
    :: atomic { w -> memory++; writes++ }
    :: atomic { !w -> w = true }; /* the fast page fault */
       open = true
    fi
  :: break
  od
}

/* Everything that was in flight is sealed again. */
inline give_back() {
  d_step {
    if
    :: flight[1] || flight[2] -> sealed = true
    :: else -> skip
    fi;
    flight[1] = false; flight[2] = false
  }
}

/* The daemon dies, with its answer to the call that is going on. */
inline daemon_ends() {
  daemon_may_die = false;
#ifndef RETURN_NOTHING
  give_back();
#endif
  slots = false; mu = false
}
#define DAEMON_DIES(lost)                                \
  if                                                     \
  :: skip                                                \
  :: atomic { daemon_may_die -> daemon_ends(); goto lost } \
  fi

/* A step of a call, which the daemon makes if it is still the one that the call
 * came to: `mine` is what daemon_may_die was then. */
#define STEP(step, lost)                          \
  atomic {                                        \
    if                                            \
    :: daemon_may_die == mine -> step             \
    :: else -> goto lost                          \
    fi                                            \
  }

/* The call took effect; its answer gets lost, or not. */
#define ANSWER(lost)                                                   \
  if                                                                   \
  :: skip                                                              \
  :: atomic { answers_to_lose > 0 -> answers_to_lose--; goto lost }    \
  fi

/* A move, in two steps; `lost` is where the caller goes if the daemon dies. */
#ifdef LEAVE_FIRST
#define MOVE(put_in, take_out, lost) \
  STEP(take_out, lost);              \
  DAEMON_DIES(lost);                 \
  STEP(put_in, lost);                \
  DAEMON_DIES(lost)
#else
#define MOVE(put_in, take_out, lost) \
  STEP(put_in, lost);                \
  DAEMON_DIES(lost);                 \
  STEP(take_out, lost);              \
  DAEMON_DIES(lost)
#endif

#ifdef NO_FENCE
#define ADMITTED(me) true
#else
#define ADMITTED(me) (owner == me)
#endif

/* Whether the destination takes a copy. */
#ifdef OLD_COPIES
#define TAKEN_FROM(me) true
#else
#define TAKEN_FROM(me) (refused != me)
#endif

inline forget_flight() { d_step { flight[1] = false; flight[2] = false } }

inline leave_for(e) {
  d_step {
    flight[1] = flight[1] && e == 1;
    flight[2] = flight[2] && e == 2;
    sealed = false
  }
}

inline deliver(e) {
#ifdef ACK_LATER
  flight[1] = false; flight[2] = false
#else
  flight[1] = flight[1] && e < 1;
  flight[2] = flight[2] && e < 2
#endif
}

/* What the first owner's threads know of each other: the epoch of a clear that
 * is going on, or was not answered; that in which the page was cleared before;
 * its copy has arrived since that clear. */
byte clearing = 0;
byte first_cleared = 0;
bool first_arrived = false;
bool first_over = false; /* it makes no more calls */

/* Another thread of the first owner, between the take and the end of a clear. */
proctype Beside() {
  bool mine;
  do
  /* Seal. */
  :: atomic {
       clearing != 0 && slots && !mu && ADMITTED(0) && open_epoch <= EPOCHS ->
       mu = true; mine = daemon_may_die
     };
#ifdef SEAL_REPLACES
     STEP(sealed = false, lost);
#endif
     /* The daemon dies in steps of the other calls. */
     if
     :: open ->
       STEP(sealed = true, lost);
       STEP(open = false; open_epoch++; mu = false, lost)
     :: else -> STEP(open_epoch++; mu = false, lost)
     fi;
lost:
     mine = false
  /* Acknowledge what was cleared before. */
  :: atomic {
       clearing == 2 && slots && !mu && ADMITTED(0) && flight[1] &&
#ifndef ACK_FIRST
       (first_arrived || first_cleared == 0 || 1 < first_cleared) &&
#endif
       true -> deliver(1)
     }
  :: first_over -> break
  od
}

/* Owner 0 begins; owner 1 takes over, whenever it likes. */
proctype Owner(byte me) {
  byte epoch = 0;   /* the last that I sealed */
  byte cleared = 0; /* the epoch in which the page was cleared for me */
  bool arrived = false; /* its copy, since that clear */
  bool unsure = false;  /* a clear was not answered */
  bool mine = false;
  byte copy = 0;
  bool on_its_way = false;
  byte ack;

  if
  :: me == 1 ->
    refused = 0;
    atomic { !slots && !mu -> slots = true; mu = true; mine = daemon_may_die };
#ifdef TAKEOVER_FORGETS
    STEP(forget_flight(), died);
#else
    if
    :: flight[1] || flight[2] ->
      MOVE(sealed = true, forget_flight(), died)
    :: else -> skip
    fi;
#endif
    STEP(owner = 1; slots = false; mu = false, died)
  :: else -> skip
  fi;
  goto ready;
died: /* ends before it owned anything */
  goto end;
ready:

  do
  /* Seal. */
  :: open_epoch <= EPOCHS && !unsure ->
    atomic {
      !mu;
      if
      :: !ADMITTED(me) -> goto end
      :: ADMITTED(me) && open_epoch > EPOCHS -> goto seal_lost
      :: else -> mu = true; mine = daemon_may_die
      fi
    };
#ifdef SEAL_REPLACES
    STEP(sealed = false, seal_lost);
#endif
    if
    :: open -> MOVE(sealed = true, open = false, seal_lost)
    :: else -> skip
    fi;
    STEP(epoch = open_epoch; open_epoch++; mu = false, seal_lost);
seal_lost:
    mine = false
  /* Clear the last sealed epoch. */
  :: epoch != 0 ->
#ifdef COPY_FIRST
    copy = memory;
#endif
    atomic {
      !slots && !mu;
      if
      :: !ADMITTED(me) -> goto end
      :: ADMITTED(me) && epoch != open_epoch - 1 -> /* EPOCH_MISMATCH */
        if
        :: unsure -> /* then the page may be in flight, as if it was answered */
          cleared = epoch; arrived = false; on_its_way = false
        :: else -> skip
        fi;
        epoch = open_epoch - 1; unsure = false; goto clear_done
      :: ADMITTED(me) && epoch == open_epoch - 1 && !sealed && !flight[epoch] ->
        unsure = false; goto clear_done /* it was clean */
      :: else ->
        slots = true; mu = true; mine = daemon_may_die; unsure = true;
        if
        :: me == 0 ->
          clearing = epoch; first_cleared = cleared; first_arrived = arrived
        :: else -> skip
        fi
      fi
    };
    if
    :: sealed ->
#ifdef CLEAR_FORGETS
      STEP(sealed = false, clear_lost);
#else
      MOVE(flight[epoch] = true, leave_for(epoch), clear_lost);
#endif
      STEP(mu = false, clear_lost);
#ifndef NO_PROTECT
      STEP(w = false, clear_lost);
#endif
      DAEMON_DIES(clear_lost)
    :: else -> STEP(mu = false, clear_lost)
    fi;
    STEP(slots = false, clear_lost);
    ANSWER(clear_lost);
    atomic {
      unsure = false; cleared = epoch; arrived = false;
#ifdef COPY_FIRST
      on_its_way = true
#else
      on_its_way = false
#endif
    };
    goto clear_done;
clear_lost:
#ifdef NO_RETRY
    unsure = false;
#endif
clear_done:
    atomic {
      mine = false;
      if
      :: me == 0 -> clearing = 0; first_cleared = 0; first_arrived = false
      :: else -> skip
      fi
    }
#ifndef COPY_FIRST
  /* Copy. */
  :: cleared != 0 && !unsure && !arrived && !on_its_way ->
    atomic { copy = memory; on_its_way = true }
#endif
  /* The copy arrives. */
  :: on_its_way ->
    atomic {
      on_its_way = false;
      if
      :: TAKEN_FROM(me) -> dest = copy; arrived = true
      :: else -> goto end
      fi
    }
  /* Acknowledge an epoch, once every page that was cleared in it, or before,
   * has arrived. An answer that gets lost changes nothing: it is one step. */
  :: atomic {
       !unsure && !mu && (flight[1] || flight[2]) ->
       ack = 1;
       if
       :: open_epoch > 2 -> ack = 2
       :: skip
       fi;
       if
#ifdef ACK_FIRST
       :: true ->
#else
       :: arrived || cleared == 0 || ack < cleared ->
#endif
         if
         :: ADMITTED(me) -> deliver(ack)
         :: else -> goto end
         fi
       :: else -> skip
       fi;
       ack = 0
     }
  /* Dies; a copy that is under way may still arrive. */
  :: break
  od;
end:
  atomic {
    epoch = 0; cleared = 0; arrived = false; unsure = false; ack = 0;
    mine = false;
    if
    :: me == 0 ->
      clearing = 0; first_cleared = 0; first_arrived = false; first_over = true
    :: else -> skip
    fi
  };
  if
  :: on_its_way -> skip /* lost */
  :: atomic { on_its_way && TAKEN_FROM(me) -> dest = copy }
  :: else -> skip
  fi
}

init {
  atomic {
    run Guest();
    run Owner(0);
    run Beside();
    run Owner(1)
  }
  _nr_pr == 1;
  /* Whatever the next owner finds in the sets, it sends: with what is there
   * already no write is missing. */
  assert(open || sealed || flight[1] || flight[2] ||
         dest == memory)
}
