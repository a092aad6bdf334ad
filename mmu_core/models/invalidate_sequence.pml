/* A fault that resolves its frame without a lock, against an invalidation of
 * that frame by the host (RACE-9 of LOCKING.md, PF-21..27).
 *
 * A TLB entry stays until it is flushed. Two frames: the host moves the page
 * from frame 1 to frame 2 and then reuses frame 1.
 *
 * Steps that can be left out or moved:
 *   LATE_SNAPSHOT   the fault reads the sequence after it found the frame
 *   NO_CHECK        it does not look again under mmu_lock
 *   CHECK_UNLOCKED  it looks again, but before it takes mmu_lock
 *   NO_SEQUENCE     the end of an invalidation leaves the sequence alone
 *   NO_COUNT        an invalidation in progress is not counted
 *   NO_ZAP          the invalidation does not zap
 *   NO_FLUSH        it does not flush
 */

#define FAULTS 2

byte sequence = 0;
byte in_progress = 0;
byte host_frame = 1; /* where the host has the page */
byte spte = 0;       /* 0: not present */
byte tlb = 0;
bool reused = false; /* frame 1 belongs to somebody else */

/* mmu_lock. */
byte readers = 0;
bool writer = false;
inline read_lock() { atomic { !writer -> readers++ } }
inline read_unlock() { readers-- }
inline write_lock() { atomic { !writer && readers == 0 -> writer = true } }
inline write_unlock() { writer = false }

proctype Fault() {
  byte s, frame, tries = 2;
  bool retry;
  do
  :: tries == 0 -> break
  :: tries > 0 ->
    tries--;
#ifndef LATE_SNAPSHOT
    s = sequence;
#endif
    if
    :: in_progress > 0 -> goto again /* only a hint (PF-22) */
    :: else -> skip
    fi;
    frame = host_frame;
#ifdef LATE_SNAPSHOT
    s = sequence;
#endif
    retry = false;
#ifdef CHECK_UNLOCKED
    d_step { retry = in_progress > 0 || sequence != s }
    read_lock();
#else
    read_lock();
#ifndef NO_CHECK
    d_step { retry = in_progress > 0 || sequence != s }
#endif
#endif
    if
    :: retry -> read_unlock()
    :: else ->
      spte = frame;
      read_unlock();
      break
    fi;
again:
    skip
  od
}

/* Accesses of a vCPU: each by what the TLB holds, else by what is mapped. */
proctype Guest() {
  byte left = 3;
  do
  :: left == 0 -> break
  :: left > 0 ->
    left--;
    /* One access section: a flush waits for it. */
    d_step {
      if
      :: tlb == 0 -> tlb = spte
      :: else -> skip
      fi;
      assert(!(tlb == 1 && reused))
    }
  od
}

proctype Invalidate() {
  write_lock();
#ifndef NO_COUNT
  in_progress++;
#endif
#ifndef NO_ZAP
  spte = 0;
#endif
#ifndef NO_FLUSH
  tlb = 0;
#endif
  write_unlock();
  host_frame = 2;
  reused = true;
  write_lock();
#ifndef NO_SEQUENCE
  sequence++;
#endif
#ifndef NO_COUNT
  in_progress--;
#endif
  write_unlock()
}

init {
  byte i = 0;
  atomic {
    do
    :: i < FAULTS -> run Fault(); i++
    :: else -> break
    od;
    run Guest();
    run Invalidate()
  }
  _nr_pr == 1;
  assert(spte != 1);
  assert(tlb != 1)
}
