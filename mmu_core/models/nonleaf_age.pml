/* Ageing that skips a table of last-level entries if the entry above says that
 * no walk has passed it (x86 EPT with Accessed and Dirty flags, the TDP MMU).
 *
 * The entry `parent` points at a table of two leafs. The table's descriptor has
 * a number, leaf_count: how many of the leafs are present, or UNKNOWN, or the
 * token of a round that counts.
 *
 * A walk of the processor goes top down:
 *   W1  It sets A of `parent`. From now on it has the pointer to the table, and
 *       it may keep the pointer in its paging-structure cache. A walk that
 *       finds the pointer there leaves `parent` alone.
 *   W2  It sets A of the leaf, and uses the page.
 * If the leaf is not present, the walk ends in a fault:
 *   F1  The processor drops the pointer from its cache, as an EPT violation
 *       does.
 *   F2  The handler makes the leaf present, with A set.
 *   F3  Unless leaf_count is UNKNOWN, the handler exchanges it for UNKNOWN.
 * A flush waits for the end of a walk that is under way, and drops the pointer.
 * An access that hits the TLB sets nothing, so the model has none.
 *
 * A round of ageing:
 *   R1  Reads `parent`. If its A is clear, all present leafs are old. Their
 *       number is leaf_count. If that is no number, the round counts (which
 *       changes nothing, so the model has no step for it) or goes on with R3.
 *   R2  If A is set: one compare-exchange that clears A of `parent`. If it
 *       fails, the round goes on all the same.
 *   R3  Exchanges leaf_count for the round's token.
 *   R4  For each leaf, in order: reads it. If A is set, the page is young, and
 *       one compare-exchange clears A.
 *   R5  Compare-exchanges its token for the number of leafs that it saw.
 * Rounds of two agers may run at the same time.
 *
 * A zap:       Z1 exchanges a leaf for a non-present value, Z2 exchanges
 *              leaf_count for UNKNOWN, Z3 flushes.
 * A prefetch:  P1 makes a leaf present with A clear, P2 exchanges leaf_count
 *              for UNKNOWN.
 * The table goes: T1 `parent` gets the value REMOVED, T2 the leafs do, T3
 *              flushes.
 *
 * What holds:
 *   (a) An access is reported by the first round that begins after W2, or by a
 *       round of another ager that is between R2 and R4 then. The exception: A
 *       of `parent` was cleared between the walk's W1 and its W2, and no walk
 *       has set it again. Such an access is reported by the first round that
 *       begins after the W1 of any later walk.
 *   (b) A page that is reported young has been accessed since its A was last
 *       cleared.
 *   (c) The exception needs a pointer that the processor has held, in a walk or
 *       in its cache, since before A of `parent` was cleared. A flush ends it:
 *       until A is cleared again, each walk is seen.
 *   (d) A number in leaf_count is exact, whether A of `parent` is set or not,
 *       except between Z1 and Z2, between P1 and P2, and between F2 and F3.
 *   (e) Neither a round nor a walk changes an entry that is REMOVED.
 *
 * Steps that can be left out or moved:
 *   BOTTOM_UP             R2 comes after R4
 *   STORE_COUNT           R5 compares nothing
 *   SHARED_TOKEN          both agers have the same token
 *   BLIND_CLEAR           R2 compares nothing
 *   BLIND_LEAF            R4 compares nothing
 *   NO_LEAF_CLEAR         R4 does not clear A
 *   BLIND_WALK            W1 reads, and then stores without a comparison
 *   FAULT_KEEPS_COUNT     F3 is left out
 *   LOOK_FIRST            F3 looks at leaf_count before F2
 *   FLUSH_KEEPS_CACHE     a flush does not drop the pointer
 *   ZAP_KEEPS_COUNT       Z2 is left out
 *   UNKNOWN_FIRST         Z2 comes before Z1
 *   PREFETCH_KEEPS_COUNT  P2 is left out
 *   PREFETCH_ACCESSED     P1 sets A
 * Exceptions that are needed:
 *   ALL_REPORTED          (a) has no exception
 *   ALWAYS_EXACT          (d) has no exception
 * These do no harm, so what they change is not needed. Without F3 they would
 * do harm: a number would then be right only if each fault is followed by a
 * walk that sets A of `parent`.
 *   FAULT_KEEPS_CACHE     F1 is left out
 *   TOKEN_FIRST           R3 comes before R2
 *   SHARED_CACHE          two vCPUs have one cache, as if a processor ran them
 *                         by turns: the other fills it between F1 and F2
 */

#define PAGES      2
#ifndef ROUNDS
#define ROUNDS     2 /* of each ager */
#endif
#ifndef OPERATIONS
#define OPERATIONS 2 /* of the host */
#endif
#ifndef AGERS
#ifdef SHARED_CACHE
#define AGERS      1
#else
#define AGERS      2
#endif
#endif
#ifdef SHARED_CACHE
#define VCPUS      2
#else
#define VCPUS      1
#endif

/* What an entry holds. OLD and YOUNG are present, with A clear and set. */
mtype = { NONE, OLD, YOUNG, REMOVED };
#define IS_PRESENT(e) (e == OLD || e == YOUNG)

mtype parent = OLD;
mtype leaf[PAGES] = NONE;

/* 0 to PAGES are numbers. */
#define IS_NUMBER(c) (c <= PAGES)
#define UNKNOWN      (PAGES + 1)
#ifdef SHARED_TOKEN
#define TOKEN(me)    (PAGES + 2)
#else
#define TOKEN(me)    (PAGES + 2 + me)
#endif
byte leaf_count;

/* The processor: whether it is in a walk, and whether it has the pointer to the
 * table, for this walk or in its cache. */
bool inside = false;
bool holds = false;

/* What the rest only asserts about.
 *
 * A of `parent` was not cleared since the W1 that read the pointer. A of
 * `parent` was cleared since the last flush. */
bool fresh = false;
bool cleared_since_flush = false;
/* The page must be reported by the next round; it was accessed. */
bool owed[PAGES] = false;
bool used[PAGES] = false;
/* The ager has done R2, but not R4 for the leaf: by ager, then by leaf. */
bool due[2 * PAGES] = false;
/* Between the two steps of each exception of (d). */
bool changing = false;
bool faulting[VCPUS] = false;

#define DUE(q)  (due[q] || due[PAGES + q])
#define PRESENT ((IS_PRESENT(leaf[0]) -> 1 : 0) + \
                 (IS_PRESENT(leaf[1]) -> 1 : 0))

#ifdef SHARED_CACHE
#define ANY_FAULTING (faulting[0] || faulting[1])
#else
#define ANY_FAULTING faulting[0]
#endif

/* When a number in leaf_count must be exact. */
#ifdef ALWAYS_EXACT
#define QUIET IS_PRESENT(parent)
#else
#define QUIET (IS_PRESENT(parent) && !changing && !ANY_FAULTING)
#endif

inline drop() { holds = false; fresh = false }

/* A of both entries is set: the next round does not skip the leaf. */
inline owe(q) { owed[q] = owed[q] || leaf[q] == YOUNG }
inline forget(q) { owed[q] = false; used[q] = false }

/* --- The guest and its faults. --- */

proctype Vcpu(bit me) {
  bit q = 0;
  bool resets = false;
end:
  do
  :: atomic {
       !inside && (holds || IS_PRESENT(parent)) ->
       inside = true;
       if
       :: q = 0
       :: q = 1
       fi;
#ifdef BLIND_WALK
     };
     atomic {
#endif
       if
       :: holds -> skip
       :: else -> /* W1 */
         parent = YOUNG;
         holds = true;
         fresh = true;
         owe(0);
         owe(1)
       fi
     };
     atomic {
       inside = false;
       if
       :: IS_PRESENT(leaf[q]) -> /* W2 */
         leaf[q] = YOUNG;
         used[q] = true;
#ifdef ALL_REPORTED
         owed[q] = true;
#endif
         owed[q] = owed[q] || fresh || parent == YOUNG;
         assert(fresh || cleared_since_flush);
         if
         :: skip /* the pointer stays cached */
         :: drop()
         fi;
         q = 0;
         goto end
       :: else -> skip
       fi;
#ifndef FAULT_KEEPS_CACHE
       drop() /* F1 */
#endif
     };
#ifdef LOOK_FIRST
     d_step { resets = (leaf_count != UNKNOWN) };
#endif
     atomic {
       if
       :: leaf[q] == NONE -> /* F2 */
         leaf[q] = YOUNG;
         used[q] = true;
         owed[q] = (parent == YOUNG);
         q = 0;
         faulting[me] = true
       :: else -> q = 0; resets = false; goto end
       fi
     };
     atomic { /* F3 */
#ifdef FAULT_KEEPS_COUNT
       resets = false;
#else
#ifndef LOOK_FIRST
       resets = (leaf_count != UNKNOWN);
#endif
#endif
       if
       :: resets -> skip
       :: else -> faulting[me] = false; goto end
       fi
     };
     d_step {
       leaf_count = UNKNOWN;
       faulting[me] = false;
       resets = false
     }
  /* The cache drops the pointer by itself. */
  :: d_step { holds && !inside -> drop() }
  od
}

/* --- A round of ageing. --- */

inline clear_parent() {
  d_step {
    if
#ifdef BLIND_CLEAR
    :: true ->
#else
    :: parent == YOUNG ->
#endif
      parent = OLD;
      fresh = false;
      cleared_since_flush = true;
#ifndef BOTTOM_UP
      due[PAGES * me] = true;
      due[PAGES * me + 1] = true
#endif
#ifndef BLIND_CLEAR
    :: else -> skip
#endif
    fi
  }
}

inline scan(q) { /* R4 */
  d_step {
    seen = leaf[q];
    n = n + (IS_PRESENT(seen) -> 1 : 0);
    if
    :: seen == YOUNG -> assert(used[q])
    :: else -> assert(!owed[q]); due[PAGES * me + q] = false
    fi
  };
  if
  :: seen == YOUNG ->
    d_step {
      if
#ifdef BLIND_LEAF
      :: true ->
#else
      :: leaf[q] == YOUNG ->
#endif
#ifndef NO_LEAF_CLEAR
        leaf[q] = OLD;
#endif
        forget(q)
#ifndef BLIND_LEAF
      :: else -> skip
#endif
      fi;
      due[PAGES * me + q] = false
    }
  :: else -> skip
  fi
}

proctype Ager(bit me) {
  byte round = 0, n = 0;
  mtype seen = NONE;
  do
  :: round == ROUNDS -> break
  :: round < ROUNDS ->
    d_step { /* R1 */
      seen = parent;
      if
      :: seen == OLD ->
        assert(!owed[0] || DUE(0));
        assert(!owed[1] || DUE(1))
      :: else -> skip
      fi
    };
    if
    :: seen == OLD ->
      atomic {
        if
        :: IS_NUMBER(leaf_count) ->
          assert(!QUIET || leaf_count == PRESENT);
          goto next
        :: !IS_NUMBER(leaf_count) -> goto next /* it counts */
        :: !IS_NUMBER(leaf_count) -> skip
        fi
      }
    :: seen == YOUNG ->
#ifdef TOKEN_FIRST
      leaf_count = TOKEN(me);
#endif
#ifdef BOTTOM_UP
      skip
#else
      clear_parent() /* R2 */
#endif
    :: else -> goto next
    fi;
#ifndef TOKEN_FIRST
    leaf_count = TOKEN(me); /* R3 */
#endif
    scan(0);
    scan(1);
#ifdef BOTTOM_UP
    clear_parent();
#endif
    d_step { /* R5 */
      if
#ifdef STORE_COUNT
      :: true -> leaf_count = n
#else
      :: leaf_count == TOKEN(me) -> leaf_count = n
      :: else -> skip
#endif
      fi
    };
next:
    atomic { seen = NONE; n = 0; round++ }
  od
}

/* --- The host: zaps, prefetches, and the end of the table. --- */

inline flush() {
  d_step {
    !inside ->
#ifndef FLUSH_KEEPS_CACHE
    drop();
#endif
    cleared_since_flush = false
  }
}

proctype Host() {
  byte left = OPERATIONS;
  bit q = 0;
  do
  :: left == 0 -> break
  /* A zap. */
  :: atomic {
       left > 0 && (IS_PRESENT(leaf[0]) || IS_PRESENT(leaf[1])) ->
       if
       :: IS_PRESENT(leaf[0]) -> q = 0
       :: IS_PRESENT(leaf[1]) -> q = 1
       fi;
#ifdef UNKNOWN_FIRST
       leaf_count = UNKNOWN
     };
     d_step {
#endif
       leaf[q] = NONE; /* Z1 */
       forget(q);
       changing = true
     };
     d_step { /* Z2 */
#if !defined(ZAP_KEEPS_COUNT) && !defined(UNKNOWN_FIRST)
       leaf_count = UNKNOWN;
#endif
       changing = false;
       q = 0
     };
     flush(); /* Z3 */
     left--
  /* A prefetch. */
  :: atomic {
       left > 0 && (leaf[0] == NONE || leaf[1] == NONE) ->
       if
       :: leaf[0] == NONE -> q = 0
       :: leaf[1] == NONE -> q = 1
       fi;
#ifdef PREFETCH_ACCESSED
       leaf[q] = YOUNG;
#else
       leaf[q] = OLD; /* P1 */
#endif
       q = 0;
       changing = true
     };
     d_step { /* P2 */
#ifndef PREFETCH_KEEPS_COUNT
       leaf_count = UNKNOWN;
#endif
       changing = false;
       left--
     }
  /* The table goes. */
  :: left > 0 ->
    parent = REMOVED; /* T1 */
    d_step { leaf[0] = REMOVED; forget(0) }; /* T2 */
    d_step { leaf[1] = REMOVED; forget(1) };
    flush(); /* T3 */
    d_step {
      assert(parent == REMOVED);
      assert(leaf[0] == REMOVED && leaf[1] == REMOVED);
      parent = NONE;
      left = 0
    }
  od
}

/* A round went before. */
init {
  atomic {
    if
    :: leaf[0] = OLD
    :: skip
    fi;
    if
    :: leaf[1] = OLD
    :: skip
    fi;
    leaf_count = PRESENT;
    if
    :: skip
    :: parent = YOUNG
    fi;
    run Vcpu(0);
#ifdef SHARED_CACHE
    run Vcpu(1);
#endif
    run Ager(0);
#if AGERS == 2
    run Ager(1);
#endif
    run Host()
  }
}
