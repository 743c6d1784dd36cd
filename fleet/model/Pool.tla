------------------------------- MODULE Pool -------------------------------
(* Several transactional ids for one shard of an instance A, so that a
   transaction whose markers can't be written holds up its id alone and A goes
   on with another. One client, one message, which A writes and which B, who
   takes the client over from a silent A, writes too if it does not find it.
   Requests land when they like, also long after A has stopped to wait. *)
EXTENDS Naturals, FiniteSets, TLC
CONSTANTS Ids, MaxEpoch,
          FenceAll,   \* B fences every id of the shard, not only the one that A's claim names
          Decided,    \* A sets an id aside only when EndTxn was answered
          Pretaken,   \* A's epoch of the next id was taken before A last read to the end, not when it is needed
          Compare     \* an id comes back by InitProducerId with the epoch that A has, not by one that takes it from anybody

VARIABLES pe,       \* [Ids -> producer epoch at the coordinator]
          st,       \* [Ids -> "empty", "open", "markers": decided, and not all markers are written]
          me,       \* [Ids -> the epoch that A believes in]
          cur,      \* the id that A uses
          a,        \* what A does: "idle", "open", "asked", "told" (its device has PUBREC), "stopped"
          net,      \* EndTxn requests on their way
          ans,      \* [Ids -> answer to the last one, or none]
          out,      \* committed records of the message
          fenced,   \* ids that B has fenced
          b         \* "claimed", "done"
vars == <<pe, st, me, cur, a, net, ans, out, fenced, b>>

First == CHOOSE k \in Ids : TRUE
Init == /\ pe = [k \in Ids |-> 1] /\ me = [k \in Ids |-> 1] /\ st = [k \in Ids |-> "empty"] /\ cur = First /\ a = "idle"
        /\ net = {} /\ ans = [k \in Ids |-> "none"] /\ out = 0 /\ fenced = {} /\ b = "claimed"

(* AddPartitionsToTxn and Produce, of the message and what the ledger says of it *)
Begin == /\ a = "idle" /\ st[cur] = "empty"
         /\ IF pe[cur] = me[cur] THEN st' = [st EXCEPT ![cur] = "open"] /\ a' = "open"
            ELSE a' = "stopped" /\ UNCHANGED st      \* fenced: it renews, reads to the end, and finds the claim
         /\ UNCHANGED <<pe, me, cur, net, ans, out, fenced, b>>
Ask(commit) == /\ a = "open" /\ a' = "asked"
               /\ net' = net \cup {[id |-> cur, e |-> me[cur], commit |-> commit]}
               /\ ans' = [ans EXCEPT ![cur] = "none"]
               /\ UNCHANGED <<pe, st, me, cur, out, fenced, b>>
Land(r) ==
  /\ r \in net /\ net' = net \ {r}
  /\ IF pe[r.id] = r.e /\ st[r.id] = "open"
     THEN /\ st' = [st EXCEPT ![r.id] = "markers"]
          /\ out' = IF r.commit THEN out + 1 ELSE out
          /\ ans' = [ans EXCEPT ![r.id] = IF r.commit THEN "committed" ELSE "aborted"]
     ELSE /\ ans' = [ans EXCEPT ![r.id] = "fenced"]
          /\ UNCHANGED <<st, out>>
  /\ UNCHANGED <<pe, me, cur, a, fenced, b>>
Hear == /\ a = "asked" /\ ans[cur] # "none"
        /\ a' = IF ans[cur] = "committed" THEN "told" ELSE IF ans[cur] = "aborted" THEN "idle" ELSE "stopped"
        /\ UNCHANGED <<pe, st, me, cur, net, ans, out, fenced, b>>
Markers(k) == st[k] = "markers" /\ st' = [st EXCEPT ![k] = "empty"] /\ UNCHANGED <<pe, me, cur, a, net, ans, out, fenced, b>>

(* the id is set aside, and the message is written again under another *)
Switch(k) == /\ k # cur /\ (a = "idle" \/ (~Decided /\ a = "asked")) /\ a' = "idle" /\ st[k] = "empty" /\ cur' = k
             /\ IF Pretaken THEN UNCHANGED <<pe, me>>
                ELSE /\ pe[k] < MaxEpoch /\ pe' = [pe EXCEPT ![k] = @ + 1] /\ me' = [me EXCEPT ![k] = pe[k] + 1]
             /\ UNCHANGED <<st, net, ans, out, fenced, b>>
(* after an abort: a new epoch, which shuts out what is still on its way *)
Back(k) == /\ a = "idle" /\ st[k] = "empty" /\ pe[k] < MaxEpoch
           /\ IF ~Compare \/ pe[k] = me[k]
              THEN pe' = [pe EXCEPT ![k] = @ + 1] /\ me' = [me EXCEPT ![k] = pe[k] + 1] /\ UNCHANGED a
              ELSE a' = "stopped" /\ UNCHANGED <<pe, me>>
           /\ UNCHANGED <<st, cur, net, ans, out, fenced, b>>

(* InitProducerId by B: an open transaction is aborted, and it is asked again until nothing is left of it *)
Fence(k) == /\ b = "claimed" /\ k \notin fenced /\ st[k] # "markers" /\ pe[k] < MaxEpoch + 2
            /\ pe' = [pe EXCEPT ![k] = @ + 1]
            /\ IF st[k] = "open" THEN st' = [st EXCEPT ![k] = "markers"] /\ UNCHANGED fenced
               ELSE fenced' = fenced \cup {k} /\ UNCHANGED st
            /\ UNCHANGED <<me, cur, a, net, ans, out, b>>
(* B reads the ledger to its end, and stores the message when the device sends it again *)
Act == /\ b = "claimed" /\ fenced = (IF FenceAll THEN Ids ELSE {First}) /\ b' = "done"
       /\ out' = IF out = 0 THEN 1 ELSE out
       /\ UNCHANGED <<pe, st, me, cur, a, net, ans, fenced>>
Next == \/ Begin \/ Ask(TRUE) \/ Ask(FALSE) \/ Hear \/ Act
        \/ \E r \in net : Land(r)
        \/ \E k \in Ids : Markers(k) \/ Switch(k) \/ Back(k) \/ Fence(k)
Spec == Init /\ [][Next]_vars

NoDouble == out <= 1
NoLoss == (a = "told" \/ b = "done") => out >= 1
=============================================================================
