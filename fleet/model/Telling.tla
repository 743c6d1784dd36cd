------------------------------- MODULE Telling -------------------------------
(* One command for one client ID, which no device wants or one takes; two instances that read the command and the sessions
   topic, each at its own pace. The device connects, subscribes or not, and ends its connection; it may go on at the other
   instance, once the first has written the end. Instance 1 owns the partition: it alone tells of what nobody wanted.
   An instance that has a connection and does not want the command writes a return. *)
EXTENDS Naturals, Sequences, FiniteSets, TLC
CONSTANTS Passed,   \* a connection that begins returns what its instance has read before, unless a session had
          Left,     \* an instance returns what comes for a connection that it had
          Once,     \* the owner knows what it has told of
          ReadEnd,  \* the owner reads the sessions to their end before it says that a device is absent
          Ends,     \* the end of a connection says how far its instance has read
          Later,    \* what comes for a connection that the instance had is left to who has opened one since
          Connections
P == {1, 2}
Owner == 1
VARIABLES log,      \* the sessions topic: <<kind, instance>>, kind "open", "return", or for the end of a connection "end" if its
                    \* instance had read the command, else "early"
          pos,      \* [P -> how many records of it are read]
          written,  \* the command is in Kafka
          read,     \* [P -> it was read]
          conn,     \* [P -> "none", "opening", "open"]
          at,       \* [P -> where the record of the opening is]
          sub,      \* the device has subscribed
          passed,   \* [P -> it has read the command before its connection was open, or after its end]
          left,     \* [P -> it had a connection]
          doubt,    \* where the sessions have to be read to, by the owner, to tell; 0: not asked
          known,    \* the owner has told
          receipts,
          n         \* connections
vars == <<log, pos, written, read, conn, at, sub, passed, left, doubt, known, receipts, n>>
Init == /\ log = <<>> /\ pos = [p \in P |-> 0] /\ written = FALSE /\ read = [p \in P |-> FALSE]
        /\ conn = [p \in P |-> "none"] /\ at = [p \in P |-> 0] /\ sub = FALSE
        /\ passed = [p \in P |-> FALSE] /\ left = [p \in P |-> FALSE]
        /\ doubt = 0 /\ known = FALSE /\ receipts = 0 /\ n = 0

(* who has the connection by what p has read; 0: nobody *)
Has(p) == LET of == {i \in 1..pos[p] : log[i][1] # "return"}
              last == CHOOSE i \in of : \A j \in of : j <= i
          IN IF of = {} \/ log[last][1] # "open" THEN 0 ELSE log[last][2]

(* who has opened the last connection in the first i records *)
Opener(i) == LET of == {j \in 1..i : log[j][1] = "open"}
             IN IF of = {} THEN 0 ELSE log[CHOOSE j \in of : \A k \in of : k <= j][2]

(* a connection has ended whose instance had read the command *)
Met(p) == \E i \in 1..pos[p] : log[i][1] = "end"

Tell == IF Once /\ known THEN UNCHANGED <<receipts, known>>
                        ELSE receipts' = receipts + 1 /\ known' = TRUE
(* p has the command and does not want it *)
Unwanted(p) == CASE Ends /\ Met(p) -> UNCHANGED <<log, receipts, known>>
                 [] ~(Ends /\ Met(p)) /\ p = Owner -> Tell /\ UNCHANGED log
                 [] ~(Ends /\ Met(p)) /\ p # Owner -> log' = Append(log, <<"return", p>>) /\ UNCHANGED <<receipts, known>>

Write == /\ ~written /\ written' = TRUE
         /\ UNCHANGED <<log, pos, read, conn, at, sub, passed, left, doubt, known, receipts, n>>
Connect(p) ==
  /\ n < Connections /\ \A q \in P : conn[q] = "none"
  /\ conn' = [conn EXCEPT ![p] = "opening"] /\ log' = Append(log, <<"open", p>>) /\ at' = [at EXCEPT ![p] = Len(log) + 1]
  /\ n' = n + 1 /\ sub' = FALSE
  /\ UNCHANGED <<pos, written, read, passed, left, doubt, known, receipts>>
Opened(p) ==
  /\ conn[p] = "opening" /\ pos[p] >= at[p] /\ conn' = [conn EXCEPT ![p] = "open"]
  /\ IF Passed /\ passed[p] THEN Unwanted(p) ELSE UNCHANGED <<log, receipts, known>>
  /\ passed' = [passed EXCEPT ![p] = FALSE]
  /\ UNCHANGED <<pos, written, read, at, sub, left, doubt, n>>
(* no instance lags behind a SUBSCRIBE: what is read there then is for the device, and was written after it *)
Subscribe(p) == /\ conn[p] = "open" /\ ~sub /\ sub' = TRUE /\ (written => \A q \in P : read[q])
                /\ UNCHANGED <<log, pos, written, read, conn, at, passed, left, doubt, known, receipts, n>>
End(p) == /\ conn[p] = "open" /\ conn' = [conn EXCEPT ![p] = "none"] /\ log' = Append(log, <<IF read[p] THEN "end" ELSE "early", p>>)
          /\ left' = [left EXCEPT ![p] = TRUE]
          /\ UNCHANGED <<pos, written, read, at, sub, passed, doubt, known, receipts, n>>
Read(p) ==
  /\ written /\ ~read[p] /\ read' = [read EXCEPT ![p] = TRUE]
  /\ CASE conn[p] = "open" /\ sub -> receipts' = receipts + (IF Ends /\ Met(p) THEN 0 ELSE 1) /\ UNCHANGED <<log, passed, doubt, known>>
       [] conn[p] = "open" /\ ~sub -> Unwanted(p) /\ UNCHANGED <<passed, doubt>>
       [] conn[p] # "open" /\ p = Owner ->
            /\ doubt' = IF ReadEnd THEN Len(log) + 1 ELSE pos[p] + 1
            /\ passed' = [passed EXCEPT ![p] = TRUE]
            /\ UNCHANGED <<log, receipts, known>>
       [] conn[p] = "opening" /\ p # Owner -> passed' = [passed EXCEPT ![p] = TRUE] /\ UNCHANGED <<log, doubt, receipts, known>>
       [] conn[p] = "none" /\ p # Owner ->
            /\ IF Left /\ left[p] THEN Unwanted(p) ELSE UNCHANGED <<log, receipts, known>>
            /\ passed' = [passed EXCEPT ![p] = TRUE]
            /\ UNCHANGED doubt
  /\ UNCHANGED <<pos, written, conn, at, sub, left, n>>
(* the owner tells if the device is nowhere, or had its last connection here *)
Resolve == /\ doubt > 0 /\ pos[Owner] >= doubt - 1 /\ doubt' = 0
           /\ IF ~(Ends /\ Met(Owner)) /\ (IF Left /\ left[Owner] /\ Opener(pos[Owner]) = Owner THEN TRUE ELSE Has(Owner) # 2) THEN Tell ELSE UNCHANGED <<receipts, known>>
           /\ UNCHANGED <<log, pos, written, read, conn, at, sub, passed, left, n>>
Follow(p) == /\ pos[p] < Len(log) /\ pos' = [pos EXCEPT ![p] = @ + 1]
             /\ IF p = Owner /\ log[pos[p] + 1][1] = "return" /\ (Later => Opener(pos[p]) = log[pos[p] + 1][2]) THEN Tell ELSE UNCHANGED <<receipts, known>>
             /\ UNCHANGED <<log, written, read, conn, at, sub, passed, left, doubt, n>>
Next == Write \/ Resolve \/ \E p \in P : Connect(p) \/ Opened(p) \/ Subscribe(p) \/ End(p) \/ Read(p) \/ Follow(p)
Spec == Init /\ [][Next]_vars

Quiet == written /\ doubt = 0 /\ \A p \in P : read[p] /\ pos[p] = Len(log) /\ conn[p] # "opening"
AtLeastOnce == Quiet => receipts > 0
AtMostOnce == receipts <= 1
=============================================================================
