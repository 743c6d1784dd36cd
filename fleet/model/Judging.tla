------------------------------- MODULE Judging -------------------------------
(* Who may be taken for dead? A judge looks for the heartbeats of a suspect in
   the partitions of the sessions topic. Partitions fail and heal one by one;
   a network may part the suspect from some of them; the judge may pause, be
   parted from Kafka, or read as late as it likes.
   A tick is the time between two heartbeats. What the suspect writes is stored
   before the next tick if the partition takes it, but only Back ticks after the
   partition has healed: connections and retries take that long. *)
EXTENDS Integers, Sequences, FiniteSets, TLC
CONSTANTS Parts,      \* partitions
          None,       \* no time
          Dead,       \* dead_after, in ticks
          Back,       \* what the suspect needs to come back to a partition that has healed
          Fails,      \* how many times a partition fails
          Cuts,       \* how many partitions the network keeps from the suspect
          Dies,       \* when the suspect crashes, or None
          Prompt,     \* the judge writes and reads without delay: what a healthy one does
          T,          \* the end of time
          Everywhere, \* heartbeats go to all partitions; else to one of their own, another for the judge
          Quorum,     \* "majority" | "one": in how many partitions the judge needs proof
          Anew,       \* an outage, or a pause of the judge, begins the count anew
          Written,    \* the count ends when the judge's last heartbeat was written; else now
          Doubted     \* what lies before a late heartbeat of the judge is not counted
VARIABLES now, up, fails, cut, lag, jp, log, run, last, heard, doubt
vars == <<now, up, fails, cut, lag, jp, log, run, last, heard, doubt>>
Home == CHOOSE q \in Parts : TRUE                        \* of the suspect
XParts == IF Everywhere THEN Parts ELSE {Home}
JParts == IF Everywhere THEN Parts ELSE Parts \ {Home}
Alive == Dies = None \/ now < Dies
Init == /\ now = 0 /\ up = [q \in Parts |-> TRUE] /\ fails = 0 /\ lag = [q \in Parts |-> 0]
        /\ cut \in {c \in SUBSET XParts : Cardinality(c) <= Cuts}
        /\ jp = [q \in Parts |-> None]                   \* the judge's heartbeat on its way, by when it was written
        /\ log = [q \in Parts |-> <<>>]                  \* stored and not yet read by the judge; None: a heartbeat of the suspect
        /\ run = [q \in Parts |-> None]                  \* since when the judge's heartbeats come back, without a break
        /\ last = [q \in Parts |-> None]                 \* when the last one was written
        /\ doubt = [q \in Parts |-> 0]                   \* what is not counted since then, or since the suspect was heard
        /\ heard = 0                                     \* when a heartbeat of the suspect was read last, in any partition
(* ---- Kafka ---- *)
Fail(q) == /\ up[q] /\ fails < Fails /\ fails' = fails + 1
           /\ up' = [up EXCEPT ![q] = FALSE] /\ lag' = [lag EXCEPT ![q] = Back]
           /\ UNCHANGED <<now, cut, jp, log, run, last, heard, doubt>>
Heal(q) == /\ ~up[q] /\ up' = [up EXCEPT ![q] = TRUE]
           /\ UNCHANGED <<now, fails, cut, lag, jp, log, run, last, heard, doubt>>
(* ---- the judge ---- *)
JLand(q) == /\ jp[q] # None /\ up[q] /\ log' = [log EXCEPT ![q] = Append(@, jp[q])]
            /\ jp' = [jp EXCEPT ![q] = None]
            /\ UNCHANGED <<now, up, fails, cut, lag, run, last, heard, doubt>>
Max(a, b) == IF a > b THEN a ELSE b
(* A heartbeat of its own that is read long after the one before was written begins a run: it was not written, not
   stored or not read for a while. *)
Broken(r, l) == r = None \/ (Anew /\ now - Max(r, l) > 2)
(* One that is read more than a tick after the one before was written may have waited for an outage, or there was one
   while the judge wrote nothing: that time proves nothing, nor does what the suspect needs then to come back. *)
Doubt(r, l) == IF Doubted /\ now - Max(r, l) > 1 THEN now - Max(r, l) + Back ELSE 0
RECURSIVE Read(_, _, _, _, _)
Read(recs, r, l, h, d) ==
  IF recs = <<>> THEN <<r, l, h, d>>
  ELSE LET w == Head(recs) IN
       IF w = None THEN Read(Tail(recs), r, l, now, 0)
       ELSE IF Broken(r, l) THEN Read(Tail(recs), now, IF Written THEN w ELSE now, h, 0)
       ELSE Read(Tail(recs), r, IF Written THEN w ELSE now, h, d + Doubt(r, l))
JRead(q) == /\ log[q] # <<>> /\ log' = [log EXCEPT ![q] = <<>>]
            /\ LET s == Read(log[q], run[q], last[q], heard, doubt[q]) IN
               /\ run' = [run EXCEPT ![q] = s[1]] /\ last' = [last EXCEPT ![q] = s[2]] /\ heard' = s[3]
               /\ doubt' = [p \in Parts |-> IF p = q THEN s[4] ELSE IF s[3] # heard THEN 0 ELSE doubt[p]]
            /\ UNCHANGED <<now, up, fails, cut, lag, jp>>
End(q) == IF Written THEN last[q] ELSE now
(* For Dead ticks nothing of the suspect was stored in q, and what the judge wrote there was. *)
Proof(q) == run[q] # None /\ now - last[q] <= 2 /\ End(q) - Max(run[q], heard) - doubt[q] >= Dead
Silent == LET proofs == {q \in JParts : Proof(q)} IN
          IF Quorum = "one" THEN proofs # {} ELSE 2 * Cardinality(proofs) > Cardinality(JParts)
(* ---- time ----
   The suspect's heartbeat of this tick is stored at its very end, which is the worst for it. A judge that does not
   beat has paused. *)
XReady(q) == Alive /\ q \in XParts /\ up[q] /\ lag[q] = 0 /\ q \notin cut
Stored(q) == IF XReady(q) /\ ~(log[q] # <<>> /\ log[q][Len(log[q])] = None) THEN Append(log[q], None) ELSE log[q]
Tick == /\ now < T
        /\ Prompt => \A q \in Parts : log[q] = <<>> /\ ~(jp[q] # None /\ up[q])
        /\ now' = now + 1
        /\ lag' = [q \in Parts |-> IF up[q] /\ lag[q] > 0 THEN lag[q] - 1 ELSE lag[q]]
        /\ log' = [q \in Parts |-> Stored(q)]
        /\ \E beats \in IF Prompt THEN {TRUE} ELSE BOOLEAN :
             jp' = [q \in Parts |-> IF beats /\ q \in JParts /\ jp[q] = None THEN now + 1 ELSE jp[q]]
        /\ UNCHANGED <<up, fails, cut, run, last, heard, doubt>>
Next == Tick \/ \E q \in Parts : Fail(q) \/ Heal(q) \/ JLand(q) \/ JRead(q)
Spec == Init /\ [][Next]_vars
Perms == Permutations(Parts)

NoFalseVerdict == Alive => ~Silent
(* A healthy judge passes the verdict on the dead: Dead + 2 ticks after the crash, or after Kafka has been well again. *)
Settled == \A q \in Parts : log[q] = <<>> /\ ~(jp[q] # None /\ up[q])
InTime == (~Alive /\ Settled /\ fails = 0 /\ now >= Dies + Dead + 2) => Silent
(* It comes too if less than half of the partitions never heal, later by what was doubted. *)
InTheEnd == (~Alive /\ Settled /\ now = T /\ 2 * Cardinality({q \in Parts : run[q] # None /\ up[q] /\ now - run[q] >= Dead + 2 + doubt[q]}) > Cardinality(Parts)) => Silent
=============================================================================
