/* One page that two vCPUs write while a migration harvests it: fast page fault
 * against seal, clear and TLB flush (RACE-1, RACE-5, RACE-6, RACE-12 of
 * LOCKING.md).
 *
 * What is weak here is weak in the model: stores of a vCPU go through a store
 * buffer, in order, and are seen by others at any later time; a TLB entry stays
 * until the vCPU handles a flush request. Atomic instructions empty the buffer.
 *
 * Steps that can be left out or moved:
 *   MARK_FIRST      the fast fault marks, then sets W
 *   NO_MARK         it does not mark
 *   NO_FLUSH        the clear does not flush
 *   NO_WAIT         the flush posts its requests and waits for nobody
 *   NO_BARRIER      the flush has no barrier that empties the others' buffers
 *   NO_RECHECK      a vCPU does not look for requests after announcing itself
 *   COPY_FIRST      the page is copied before the flush
 *   TAKE_FIRST      a seal takes the word, then clears the summary
 */

#define VCPUS  2
#define ROUNDS 2

/* The page: contents, write permission, marks. */
byte memory = 0;
bool w = true; /* of the SPTE; it is MMU-writable throughout */
bool live = false, summary = false; /* the open bitmap */
bool sealed = false;
byte copied = 0;

/* Each vCPU. */
bool inside[VCPUS] = false; /* its access section, as others see it */
bool request[VCPUS] = false;
bool tlb[VCPUS] = false; /* holds a writable translation */

/* Store buffers: {is it contents?, value}. */
chan buffer0 = [3] of { bool, byte };
chan buffer1 = [3] of { bool, byte };

inline store(me, is_contents, value) {
  if
  :: me == 0 -> buffer0!is_contents, value
  :: else -> buffer1!is_contents, value
  fi
}
inline retire_oldest0() {
  if
  :: buffer0?true, memory
  :: buffer0?false, inside[0]
  fi
}
inline retire_oldest1() {
  if
  :: buffer1?true, memory
  :: buffer1?false, inside[1]
  fi
}
inline drain0() {
  do
  :: nempty(buffer0) -> retire_oldest0()
  :: empty(buffer0) -> break
  od
}
inline drain1() {
  do
  :: nempty(buffer1) -> retire_oldest1()
  :: empty(buffer1) -> break
  od
}
inline drain(me) {
  if
  :: me == 0 -> drain0()
  :: else -> drain1()
  fi
}

/* The memory system: lets buffered stores through whenever it likes. */
proctype Buffers() {
end:
  do
  :: atomic { nempty(buffer0) -> retire_oldest0() }
  :: atomic { nempty(buffer1) -> retire_oldest1() }
  od
}

inline mark(me) {
  atomic { drain(me); live = true };
  atomic { drain(me); summary = true }
}

proctype Vcpu(byte me) {
  byte left = 2 - me; /* the second write of vCPU 0 may hit its TLB */
  do
  :: left == 0 -> break
  :: left > 0 ->
    store(me, false, 1); /* V1: announce the access */
#ifdef NO_RECHECK
    skip;
#else
    if
    :: request[me] -> /* V3 */
      store(me, false, 0);
      atomic { drain(me); request[me] = false; tlb[me] = false };
      goto next
    :: else -> skip
    fi;
#endif
    if
    :: tlb[me] -> skip
    :: else ->
      if
      :: w -> tlb[me] = true /* the walk */
      :: else ->
        store(me, false, 0);
        /* The fast page fault. */
        if
        :: w -> goto next
        :: else -> skip
        fi;
#ifdef MARK_FIRST
        mark(me);
#endif
        atomic { drain(me); w = true };
#if !defined(MARK_FIRST) && !defined(NO_MARK)
        mark(me);
#endif
        goto next
      fi
    fi;
    store(me, true, 10 * (me + 1) + left); /* V4: the guest's write */
    store(me, false, 0);                   /* V5 */
    left--;
next:
    skip
  od;
  atomic { drain(me) }
}

/* Reads the live word, adds what it saw to the sealed one, and then clears that
 * of the live word: a page that was not seen stays. */
inline take() {
  if
  :: live -> sealed = true; live = false
  :: else -> skip
  fi
}

inline seal() {
#ifdef TAKE_FIRST
  if
  :: summary -> take(); summary = false
  :: else -> skip
  fi
#else
  if
  :: summary -> summary = false; take()
  :: else -> skip
  fi
#endif
}

inline flush() {
#ifndef NO_FLUSH
  request[0] = true; /* F1 */
  request[1] = true;
#ifndef NO_BARRIER
  atomic { drain0(); drain1() } /* F2 */
#endif
#ifndef NO_WAIT
  !inside[0]; /* F3 */
  !inside[1];
#endif
#endif
  skip
}

/* Seal, clear, flush, copy; what a migration does in every round. */
proctype Migration() {
  byte round = 0;
  /* Logging begins: everything is protected and sent once. */
  w = false;
  flush();
  copied = memory;
  do
  :: round == ROUNDS -> break
  :: round < ROUNDS ->
    seal();
    if
    :: sealed ->
      sealed = false; /* acknowledged */
      w = false;      /* under mmu_lock; the fast fault takes none */
#ifdef COPY_FIRST
      copied = memory;
      flush();
#else
      flush();
      copied = memory;
#endif
    :: else -> skip
    fi;
    round++
  od
}

init {
  atomic {
    run Buffers();
    run Vcpu(0);
    run Vcpu(1);
    run Migration()
  }
  _nr_pr == 2;
  /* The guest has stopped. What the next seal finds, or the last copy has, is
   * all that there is: no write is in neither. */
  assert((summary && live) || sealed || copied == memory)
}
