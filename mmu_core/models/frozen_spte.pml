/* Removing a page table that others are walking and changing (RACE-3, RACE-4
 * of LOCKING.md): the frozen value and the grace period.
 *
 * Steps that can be left out:
 *   NO_FREEZE     the entries of the unlinked table are cleared, not frozen
 *   BLIND_STORE   a fault stores its leaf instead of compare-and-exchanging it
 *   NO_GRACE      the table is freed at once
 *   NO_SECTION    the table walk opens no RCU read section
 */

#define ENTRIES 2
#define READERS 4 /* two faults, one table walk, one zap */

mtype = { NONE, LEAF, FROZEN, TABLE, HUGE };

mtype parent = TABLE;
mtype entry[ENTRIES] = NONE;
bool freed = false;
bool in_section[READERS] = false;
int small_leafs = 0; /* what the page counter says */

/* Every touch of the table's memory. */
inline touch() { assert(!freed) }

/* A page fault that installs a small leaf, under mmu_lock in read mode. */
proctype Fault(byte me; byte i) {
  mtype old;
  d_step { in_section[me] = true }
  if
  :: parent == TABLE ->
    d_step { touch(); old = entry[i] }
    if
    :: old == NONE ->
#ifdef BLIND_STORE
      d_step { touch(); entry[i] = LEAF; small_leafs++ }
#else
      d_step {
        touch();
        if
        :: entry[i] == old -> entry[i] = LEAF; small_leafs++
        :: else -> skip /* lost: the guest retries */
        fi
      }
#endif
    :: else -> skip
    fi
  :: else -> skip
  fi
  in_section[me] = false
}

/* The table walk of a vCPU: no lock at all. */
proctype Walk(byte me) {
#ifndef NO_SECTION
  in_section[me] = true;
#endif
  if
  :: parent == TABLE -> d_step { touch() }; d_step { touch() }
  :: else -> skip
  fi;
  in_section[me] = false
}

/* A zap of one leaf under mmu_lock in read mode: wins or loses the entry. */
proctype ZapLeaf(byte me; byte i) {
  mtype old = NONE;
  in_section[me] = true;
  if
  :: parent == TABLE -> d_step { touch(); old = entry[i] }
  :: else -> skip
  fi;
  if
  :: old == LEAF ->
    d_step {
      touch();
      if
      :: entry[i] == old -> entry[i] = NONE; small_leafs--
      :: else -> skip
      fi
    }
  :: else -> skip
  fi;
  in_section[me] = false
}

/* Recovery of a huge page: unlink, freeze, wait, free. */
proctype Remove() {
  byte i = 0;
  byte r = 0;
  bool seen[READERS];
  d_step { assert(parent == TABLE); parent = HUGE }
  do
  :: i < ENTRIES ->
    d_step { /* an exchange: the old value tells what to take back */
      if
      :: entry[i] == LEAF -> small_leafs--
      :: else -> skip
      fi;
#ifdef NO_FREEZE
      entry[i] = NONE;
#else
      entry[i] = FROZEN;
#endif
      i++
    }
  :: else -> break
  od;
#ifndef NO_GRACE
  /* A grace period: those that are inside now must have been outside once. */
  atomic {
    r = 0;
    do
    :: r < READERS -> seen[r] = in_section[r]; r++
    :: else -> break
    od;
    r = 0
  }
  do
  :: r < READERS && !seen[r] -> r++
  :: r < READERS && seen[r] && !in_section[r] -> r++
  :: r >= READERS -> break
  od;
#endif
  freed = true
}

init {
  atomic {
    run Fault(0, 0);
    run Fault(1, 0);
    run Walk(2);
    run ZapLeaf(3, 0);
    run Remove()
  }
  _nr_pr == 1;
  /* Nothing of the removed table is counted any more. */
  assert(small_leafs == 0)
}
