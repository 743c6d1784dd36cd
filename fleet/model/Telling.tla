------------------------------- MODULE Telling -------------------------------
(* One command for one client ID, which no device wants or one takes; two instances that read the command and the sessions
   topic, each at its own pace. The device connects, subscribes or not, and ends its connection, with a session that is stored
   or not; it may go on at the other instance, once the first has written the end. Instance 1 owns the partition: it tells of
   commands that nobody was offered. *)
EXTENDS Naturals, Sequences, TLC
CONSTANTS Gaps,     \* the record of an opening says what its instance had read before
          Heard,    \* what is read while a connection is opened, its instance tells of once it is open
          Open,     \* the owner looks again at what it has left to a connection when it reads a record of the client
          Met,      \* the end of a connection says how far its instance had offered commands, or told of them
          ReadEnd,  \* the owner reads the sessions to their end before it says that a device is absent
          Lag,      \* a connection may be opened by an instance that has not read the command yet, though the owner has told of it
          Connections
P == {1, 2}
Owner == 1
VARIABLES log,      \* the sessions topic: <<kind, instance, flag>>; "open": the flag says that the command is in the gap before the
                    \* connection; "end": that the connection was offered the command, or told of it
          pos,      \* [P -> how many records of it are read]
          written,  \* the command is in Kafka
          read,     \* [P -> it was read]
          conn,     \* [P -> "none", "opening", "open"]
          at,       \* [P -> where the record of the opening is]
          sub,      \* the device has subscribed
          heard,    \* [P -> it was read while a connection was opened, behind the record of that]
          offered,  \* [P -> the connection was offered it, or has told of it]
          left,     \* the owner has left it to a connection
          doubt,    \* where the sessions have to be read to, by the owner, to tell; 0: not asked
          receipts,
          n         \* connections
vars == <<log, pos, written, read, conn, at, sub, heard, offered, left, doubt, receipts, n>>
Init == /\ log = <<>> /\ pos = [p \in P |-> 0] /\ written = FALSE /\ read = [p \in P |-> FALSE]
        /\ conn = [p \in P |-> "none"] /\ at = [p \in P |-> 0] /\ sub = FALSE
        /\ heard = [p \in P |-> FALSE] /\ offered = [p \in P |-> FALSE] /\ left = FALSE
        /\ doubt = 0 /\ receipts = 0 /\ n = 0

(* the last record in the first i *)
Last(i) == IF i = 0 THEN <<"end", 0, FALSE>> ELSE log[i]
InGap(p) == \E i \in 1..pos[p] : log[i][1] = "open" /\ log[i][3]
(* a connection was offered the command, by what p has read *)
Offered(p) == ~InGap(p) /\ \E i \in 1..pos[p] : log[i][1] = "end" /\ log[i][3]
Tell == receipts' = receipts + 1
Silent == UNCHANGED receipts

Write == /\ ~written /\ written' = TRUE
         /\ UNCHANGED <<log, pos, read, conn, at, sub, heard, offered, left, doubt, receipts, n>>
(* what a connection was offered before is in no gap: the session's positions say so *)
Connect(p) ==
  /\ n < Connections /\ \A q \in P : conn[q] = "none"
  /\ (Lag \/ ~written \/ read[p] \/ ~read[Owner])
  /\ pos[p] = Len(log) \* the claim is read back first
  /\ conn' = [conn EXCEPT ![p] = "opening"] /\ log' = Append(log, <<"open", p, Gaps /\ read[p] /\ ~Offered(p)>>)
  /\ at' = [at EXCEPT ![p] = Len(log) + 1] /\ n' = n + 1 /\ sub' = FALSE
  /\ heard' = [heard EXCEPT ![p] = FALSE] /\ offered' = [offered EXCEPT ![p] = Offered(p)]
  /\ UNCHANGED <<pos, written, read, left, doubt, receipts>>
Opened(p) ==
  /\ conn[p] = "opening" /\ pos[p] >= at[p] /\ conn' = [conn EXCEPT ![p] = "open"]
  /\ IF (Heard /\ heard[p] /\ ~offered[p]) \/ (p = Owner /\ left /\ ~Offered(p)) THEN Tell ELSE Silent
  /\ offered' = [offered EXCEPT ![p] = @ \/ heard[p]] /\ heard' = [heard EXCEPT ![p] = FALSE]
  /\ left' = (left /\ p # Owner)
  /\ UNCHANGED <<log, pos, written, read, at, sub, doubt, n>>
(* no instance lags behind a SUBSCRIBE: what is read there then is for the device, and was written after it *)
Subscribe(p) == /\ conn[p] = "open" /\ ~sub /\ sub' = TRUE /\ (written => \A q \in P : read[q])
                /\ UNCHANGED <<log, pos, written, read, conn, at, heard, offered, left, doubt, receipts, n>>
End(p) == /\ conn[p] = "open" /\ conn' = [conn EXCEPT ![p] = "none"] /\ log' = Append(log, <<"end", p, Met /\ offered[p]>>)
          /\ UNCHANGED <<pos, written, read, at, sub, heard, offered, left, doubt, receipts, n>>
Read(p) ==
  /\ written /\ ~read[p] /\ read' = [read EXCEPT ![p] = TRUE]
  /\ CASE conn[p] = "open" -> \* what the session was offered elsewhere is not for it; in the gap of one elsewhere it is the owner's
            /\ IF (InGap(p) /\ p # Owner) \/ (offered[p] /\ ~InGap(p)) THEN Silent ELSE Tell
            /\ offered' = [offered EXCEPT ![p] = TRUE] /\ UNCHANGED <<heard, doubt>>
       [] conn[p] = "opening" /\ p # Owner -> heard' = [heard EXCEPT ![p] = TRUE] /\ UNCHANGED <<offered, doubt, receipts>>
       [] conn[p] # "open" /\ p = Owner -> doubt' = (IF ReadEnd THEN Len(log) ELSE pos[p]) + 1 /\ UNCHANGED <<heard, offered, receipts>>
       [] conn[p] = "none" /\ p # Owner -> UNCHANGED <<heard, offered, doubt, receipts>>
  /\ UNCHANGED <<log, pos, written, conn, at, sub, left, n>>
(* the owner tells if no connection was offered the command, and none elsewhere is going to be *)
Due(i) == Last(i)[1] = "end" \/ Last(i)[2] = Owner
Resolve == /\ doubt > 0 /\ pos[Owner] >= doubt - 1 /\ doubt' = 0
           /\ IF Offered(Owner) THEN Silent /\ UNCHANGED left
              ELSE IF InGap(Owner) \/ Due(pos[Owner]) THEN Tell /\ UNCHANGED left
              ELSE Silent /\ left' = TRUE
           /\ UNCHANGED <<log, pos, written, read, conn, at, sub, heard, offered, n>>
Follow(p) == /\ pos[p] < Len(log) /\ pos' = [pos EXCEPT ![p] = @ + 1]
             /\ LET r == log[pos[p] + 1]
                    over == r[1] = "end" \/ (r[1] = "open" /\ r[3])
                IN IF p = Owner /\ left /\ Open /\ over
                   THEN left' = FALSE /\ IF r[1] = "end" /\ r[3] /\ ~InGap(Owner) THEN Silent ELSE Tell
                   ELSE Silent /\ UNCHANGED left
             /\ UNCHANGED <<log, written, read, conn, at, sub, heard, offered, doubt, n>>
Next == Write \/ Resolve \/ \E p \in P : Connect(p) \/ Opened(p) \/ Subscribe(p) \/ End(p) \/ Read(p) \/ Follow(p)
Spec == Init /\ [][Next]_vars

Quiet == written /\ doubt = 0 /\ \A p \in P : read[p] /\ pos[p] = Len(log) /\ conn[p] # "opening"
AtLeastOnce == Quiet => receipts > 0
AtMostOnce == receipts <= 1
AtMostTwice == receipts <= 2
=============================================================================
