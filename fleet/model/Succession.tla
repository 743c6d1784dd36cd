------------------------------ MODULE Succession ------------------------------
(* As Telling: one command for one client ID, which no device wants. Here a session may begin at an instance while the end of the
   one before is not written, or not read yet. The steps are those of fleet/driver (quest, heard, birth, past) for one client: each
   instance reads the command once, and the records of the sessions in their order, each at its own pace. The owner stays, and
   nobody dies. *)
EXTENDS Naturals, Sequences, TLC
CONSTANTS None, Owner, Others, Connections, Starts,
          Late,    \* what is read after CONNECT, until the record that begins the session is written, is in its begins
          Hold,    \* what was read while that record was on its way, its holder tells of, after the last word on the session before
          Pass,    \* the owner leaves what was left to the session before to the next one, if its begins are not behind it
          Gapped,  \* what is in a gap of a session that has ended was told of by nobody
          Resumed, \* at a resume too, what was left to the session before that one stays open until the last word on it
          \* Rules that the driver does not have, or has in another way (README.md):
          ToEnd,   \* what is left to a session is not told of before the sessions are read to where they ended when it was read
          Truth,   \* a last word does not say offered of what is still open or in doubt at its instance
          Says,    \* who has the new session tells as long as it has the connection, else the owner
          Chain,   \* of what was left to a session that has been replaced twice, the last word on that one decides
          Bare,    \* what was left to a claim alone counts as left to the session that it opens
          Sure,    \* what is in doubt at the owner is heard when it writes the record that opens a session
          Above,   \* what comes before a session elsewhere, and not before the next one here, is not the owner's alone
          Away,    \* the owner has no connection of the device
          Slow,    \* a connection is answered, and its end written, later
          GiveUps, \* CONNECTs may be given up
          Tombs,   \* keys are removed that nobody needs
          Some     \* other commands were read before: each session's begins are known, though not behind the command
P == Others \cup {Owner}
VARIABLES log, \* the sessions topic
          l,   \* [P -> what the instance knows and does]
          written, receipts,
          lag, \* an instance has read the command behind a record that opened a session there, and it was written before
          two, \* it was written when the device had left a connection for another one, and its instance did not know that
          n    \* connections
vars == <<log, l, written, receipts, lag, two, n>>
Max(S) == CHOOSE x \in S : \A y \in S : y <= x

(* A record of the key of instance k, as far as it matters. beg: the session's begins are behind the command; gap: it is in a gap;
   reach: the session was offered it; ends: the same, in one that has ended; exp: the session outlives its connection. *)
NoRec == [k |-> None, claim |-> 0, st |-> 0, began |-> 0, rel |-> FALSE, ended |-> FALSE, wd |-> FALSE, clean |-> FALSE,
          exp |-> FALSE, offl |-> FALSE, beg |-> FALSE, gap |-> FALSE, reach |-> FALSE, ends |-> FALSE, tomb |-> FALSE]
IsLast(r) == r.rel \/ r.st < r.claim
Offered(r) == (IF r.ended THEN r.ends ELSE r.reach) /\ ~r.beg /\ ~r.gap
Settled(r) == r.rel \/ r.wd
Opened(r) == r.st > 0 /\ r.st = r.claim

(* The table of an instance that has read i records. *)
Entry(t, k) == t[k]
Entries(t) == {t[k] : k \in P} \ {NoRec}
Newer(S) == IF S = {} THEN NoRec ELSE CHOOSE r \in S : \A o \in S : o.st <= r.st
Top(i) == Newer({r \in Entries(i) : r.st > 0})
Before(i, began) == Newer({r \in Entries(i) : r.st > 0 /\ r.st < began})
Connected(i) == Opened(Top(i)) /\ ~Top(i).rel /\ ~Top(i).ended
Claimed(i, me) == \E r \in Entries(i) : r.claim > Top(i).st /\ ~Settled(r) /\ r.k # me
Higher(i, me, ep) == \E r \in Entries(i) : r.k # me /\ r.claim > ep /\ (r.st > ep \/ ~Settled(r))

(* What an instance has: pos, how many records it has read; ph, "idle", "claim", "shown" (the opening record is written), "open" or
   "leaving"; ep, the epoch; oat, where the opening record is; pres, it resumes; born; met, somebody was told here; wr, the command
   was written before a record that opened a session here, and read behind it; heard; req, what the opening record is to say of that;
   open, it was left to a session; left, the epoch of that, 0 for a claim alone; end, where the sessions ended then; births, the
   last one first; past; over, that one's end is known; quest; tell, receipts in this step. *)
Start(p) == [me |-> p, pos |-> 0, tab |-> [k \in P |-> NoRec], read |-> FALSE, ph |-> "idle", ep |-> 0, oat |-> 0, pres |-> FALSE, born |-> 0, met |-> FALSE,
             wr |-> FALSE, heard |-> FALSE, req |-> FALSE, open |-> FALSE, left |-> 0, end |-> 0, ahead |-> FALSE, births |-> <<>>,
             past |-> NoRec, over |-> FALSE, quest |-> FALSE, qend |-> 0, qborn |-> 0, qtold |-> FALSE, qoff |-> FALSE, tell |-> 0]
(* It starts with nothing, or with a connection that is open; or its session, resumed there by one that had read the command, has it in
   a gap; or the next session has begun at the owner already, who had read the command and left it to that one. *)
Claim(k, i) == [NoRec EXCEPT !.k = k, !.claim = i]
At(L, i, s) == [L EXCEPT !.ph = "open", !.ep = i, !.oat = i + 1, !.born = IF s.began = i THEN i ELSE 0, !.pres = s.began # i]
Read(L, i, t) == [L EXCEPT !.pos = i, !.tab = t]
Init ==
  /\ \E w \in Starts, k \in P, e \in BOOLEAN :
       LET s == [Claim(k, 1) EXCEPT !.st = 1, !.began = IF w = "gap" THEN 0 ELSE 1, !.exp = e, !.gap = w = "gap"]
           t == [p \in P |-> IF p = k THEN s ELSE NoRec]
           r == [Claim(Owner, 3) EXCEPT !.st = 3, !.began = 3, !.exp = TRUE, !.clean = TRUE, !.beg = TRUE]
       IN CASE w = "nothing" -> k = Owner /\ ~e /\ log = <<>> /\ l = [p \in P |-> Start(p)] /\ written = FALSE
            [] w = "open" -> /\ log = <<Claim(k, 1), s>> /\ written = FALSE
                             /\ l = [p \in P |-> IF p = k THEN At(Read(Start(p), 2, t), 1, s) ELSE Read(Start(p), 2, t)]
            [] w = "gap" -> /\ k # Owner /\ e /\ log = <<Claim(k, 1), s>> /\ written = TRUE
                            /\ l = [p \in P |-> IF p = k THEN [At(Read(Start(p), 2, t), 1, s) EXCEPT !.read = TRUE, !.heard = TRUE] ELSE Read(Start(p), 2, t)]
            [] w = "next" -> /\ k # Owner /\ log = <<Claim(k, 1), s, Claim(Owner, 3), r>> /\ written = TRUE
                             /\ l = [p \in P |-> IF p = k THEN At(Read(Start(p), 2, t), 1, s)
                                   ELSE IF p # Owner THEN Read(Start(p), 2, t)
                                   ELSE [At(Read(Start(p), 4, [t EXCEPT ![p] = r]), 3, r) EXCEPT !.read = TRUE, !.heard = TRUE, !.open = TRUE, !.left = 1, !.past = s, !.over = TRUE]]
  /\ receipts = 0 /\ lag = FALSE /\ two = FALSE /\ n = 0

Mine(L) == L.me = Owner
LastOwn(L) == LET own == {j \in 1..Len(log) : log[j].k = L.me} IN IF own = {} THEN 0 ELSE Max(own)
Book(L) == LET i == LastOwn(L) IN IF i = 0 \/ log[i].tomb THEN NoRec ELSE log[i]
Holder(L) == L.ph # "idle" \/ LastOwn(L) > L.pos
Conn(L) == L.ph \in {"open", "leaving"}
Opening(L) == L.ph \in {"claim", "shown"}
Lasting(L) == Conn(L) /\ (L.pres \/ Book(L).exp)
Beginning(L) == L.ph = "shown" /\ L.pos >= L.oat /\ ~L.pres
Resumes(L) == L.ph = "shown" /\ L.pos >= L.oat /\ L.pres
Newest(L) == LET own == Book(L) top == Top(L.tab)
             IN IF own.st > 0 /\ L.ph # "shown" /\ own.st >= top.st THEN own ELSE top
Hear(L, open) == [L EXCEPT !.heard = TRUE, !.open = open, !.left = IF open THEN Top(L.tab).st ELSE 0, !.end = IF open /\ ToEnd /\ Mine(L) THEN Len(log) ELSE 0,
                           !.req = @ \/ (Late /\ L.ph = "claim")]
Ahead(L, is) == [L EXCEPT !.ahead = @ \/ (is /\ ~L.read)]
IsBefore(L, began) == (Bare \/ L.left > 0) /\ L.left < began

(* births *)
NoBirth == [epoch |-> 0, beg |-> FALSE, past |-> NoRec, told |-> FALSE, is |-> FALSE]
RECURSIVE Deep(_, _)
Deep(bs, i) == IF i < Len(bs) /\ (bs[i].past = NoRec \/ bs[i].past.began = bs[i + 1].epoch) /\ bs[i + 1].beg THEN Deep(bs, i + 1) ELSE i
Birth(L) ==
  IF L.births = <<>> \/ ~L.births[1].beg THEN NoBirth
  ELSE LET s == Newest(L) b == L.births[Deep(L.births, 1)]
       IN IF s # NoRec /\ s.began > L.births[1].epoch /\ s.k # L.me THEN NoBirth
          ELSE IF b.told /\ ~(Gapped /\ b.past.gap) THEN NoBirth
          ELSE IF b.past.beg THEN [b EXCEPT !.past = NoRec]
          ELSE b
Precedes(L) == Mine(L) /\ Birth(L).is

(* settle, for a command that is open *)
Keep(L) == L
Drop(L) == [L EXCEPT !.open = FALSE, !.left = 0, !.end = 0]
TellOf(L) == [Drop(L) EXCEPT !.tell = @ + 1]
TellHere(L) == [TellOf(L) EXCEPT !.met = @ \/ L.ph # "idle"]
ByOwner(L) == IF Mine(L) THEN TellOf(L) ELSE Drop(L)
Settle(L, s, offers) ==
  LET next == Newest(L)
  IN IF s # NoRec /\ Offered(s) THEN Drop(L)
     ELSE IF s # NoRec /\ offers THEN Keep(L)
     ELSE IF next # NoRec /\ IsBefore(L, next.began) /\ (s = NoRec \/ s.st < next.began) /\ ~next.beg
       THEN IF next.k # L.me
            THEN IF ~Pass THEN ByOwner(L) ELSE IF Offered(next) THEN Drop(L) ELSE IF Connected(L.tab) THEN Keep(L) ELSE ByOwner(L)
            ELSE IF Hold /\ (~Says \/ L.ph \in {"shown", "open", "leaving"}) THEN TellHere(L) ELSE ByOwner(L)
     ELSE ByOwner(L)
SettleLast(L, last) ==
  LET was == Before(L.tab, last.began)
      it == IF Chain /\ last.beg /\ IsBefore(L, last.began) /\ was # NoRec THEN was ELSE last
  IN Settle(L, it, ~IsLast(it) /\ ~it.ended)
SettleBefore(L, b) == IF b.past = NoRec THEN Settle(L, NoRec, FALSE) ELSE SettleLast(L, b.past)
Reconsidered(L) ==
  IF ~L.open THEN L ELSE
  LET s == Newest(L) b == Birth(L) last == Before(L.tab, s.began)
  IN IF b.is /\ ~Mine(L) /\ Above /\ Book(L).began > L.births[1].epoch /\ ~Book(L).beg
       THEN IF L.ph = "shown" THEN L ELSE IF last # NoRec THEN SettleLast(L, last) ELSE Settle(L, s, FALSE)
     ELSE IF b.is THEN SettleBefore(L, b)
     ELSE IF s # NoRec /\ IsBefore(L, s.began) /\ last # NoRec THEN SettleLast(L, last)
     ELSE IF s # NoRec /\ IsLast(s) /\ (Offered(s) \/ (s.clean /\ ~s.ended /\ s.st < s.claim)) THEN SettleLast(L, s)
     ELSE IF Claimed(L.tab, L.me) \/ L.ph \in {"claim", "shown", "open"} THEN L
     ELSE Settle(L, s, s.k # L.me /\ Connected(L.tab) /\ s # NoRec /\ ~s.beg /\ ~s.gap)
Reconsider(L) == LET M == Reconsidered(L) IN IF L.pos < L.end /\ M.tell > L.tell THEN L ELSE M
SettleHeard(L) ==
  IF ~L.open THEN L ELSE
  LET state == Book(L) b == Birth(L) last == Before(L.tab, state.began)
  IN Reconsider(
     IF b.is /\ ~(~Mine(L) /\ Above /\ state.began > L.births[1].epoch /\ ~state.beg) THEN SettleBefore(L, b)
     ELSE IF Offered(state) \/ (~Mine(L) /\ (state.beg \/ state.gap)) THEN Drop(L)
     ELSE IF ~Resumed /\ L.pres THEN TellHere(L)
     ELSE IF IsBefore(L, state.began) /\ L.past.k = L.me THEN SettleLast(L, L.past)
     ELSE IF IsBefore(L, state.began) /\ last # NoRec THEN L
     ELSE TellHere(L))

(* past *)
TellPast(L) ==
  IF L.past = NoRec THEN L ELSE
  LET last == Entry(L.tab, L.past.k)
      same == last.st = L.past.st
      M == IF same THEN [L EXCEPT !.past = last] ELSE L
  IN IF same /\ last.ended THEN [M EXCEPT !.past = NoRec]
     ELSE IF same /\ last.k # L.me /\ ~last.rel THEN M
     ELSE IF M.over THEN [Ahead(M, M.past.reach) EXCEPT !.past = NoRec]
     ELSE M

(* find: who tells; left, before: see Quest *)
Where(L) ==
  LET own == Newest(L) top == Top(L.tab)
      s == IF Holder(L) /\ own.k = L.me THEN own ELSE top
      connected == ~s.rel /\ ~s.offl /\ s.k # L.me
  IN IF s = NoRec \/ s.ended THEN [s |-> NoRec, c |-> FALSE]
     ELSE IF ~connected /\ ~s.exp /\ (~Holder(L) \/ (~Lasting(L) /\ ~Resumes(L))) THEN [s |-> NoRec, c |-> FALSE]
     ELSE [s |-> s, c |-> connected]
Find(L, born, told, offered) ==
  LET w == Where(L)
      F(here, left, before) == [here |-> here, left |-> left, before |-> before]
  IN IF told THEN F(FALSE, FALSE, FALSE)
     ELSE IF Precedes(L) THEN F(FALSE, TRUE, TRUE)
     ELSE IF Holder(L) /\ L.born > born THEN F(TRUE, FALSE, FALSE)
     ELSE IF Beginning(L) THEN F(TRUE, FALSE, FALSE)
     ELSE IF w.s.beg THEN F(TRUE, FALSE, FALSE)
     ELSE IF ~w.s.gap /\ (w.c \/ Claimed(L.tab, L.me)) THEN F(FALSE, w.s = NoRec \/ ~Offered(w.s), FALSE)
     ELSE IF w.s = NoRec THEN F(TRUE, FALSE, FALSE)
     ELSE F(~offered, FALSE, FALSE)
Tells(L) == [L EXCEPT !.tell = @ + 1]

(* A command is read. *)
Seek(L) ==
  IF L.ahead /\ ~((Mine(L) /\ Newest(L).gap) \/ Precedes(L)) THEN L
  ELSE IF ~Holder(L) /\ ~Mine(L) THEN Hear(L, Connected(L.tab) \/ Claimed(L.tab, L.me))
  ELSE LET offered == Offered(Newest(L))
           f == Find(L, L.born, FALSE, offered)
           M == IF f.left \/ ~Mine(L) THEN Hear(L, f.left) ELSE L
       IN IF ~f.here THEN (IF f.before THEN Reconsider(M) ELSE M)
          ELSE IF Conn(L) /\ (Lasting(L) \/ ~Mine(L)) THEN [Tells(L) EXCEPT !.met = TRUE]
          ELSE IF (Sure \/ ~Mine(L)) /\ L.ph = "shown" /\ ~L.pres THEN [Tells(L) EXCEPT !.met = TRUE]
          ELSE IF ~Mine(L) THEN Hear(L, TRUE)
          ELSE [L EXCEPT !.quest = TRUE, !.qend = Len(log), !.qborn = L.born, !.qoff = offered]
Send(L) ==
  LET c == Book(L)
  IN IF Precedes(L) THEN Reconsider(Hear(L, TRUE))
     ELSE IF ~L.pres /\ L.ahead /\ L.wr THEN L
     ELSE IF Mine(L) /\ c.beg THEN Tells(L)
     ELSE [L EXCEPT !.met = TRUE, !.tell = @ + IF (c.gap /\ Mine(L)) \/ (~c.gap /\ ~L.ahead) THEN 1 ELSE 0]

(* One step of an instance: its receipts are counted. What can't matter any more is forgotten. *)
Lean(L) ==
  IF ~L.read \/ L.open \/ L.quest THEN L
  ELSE [L EXCEPT !.births = <<>>, !.past = NoRec, !.over = FALSE, !.ahead = FALSE, !.born = 0, !.wr = FALSE]
Put(L) == l' = [l EXCEPT ![L.me] = [Lean(L) EXCEPT !.tell = 0]] /\ receipts' = receipts + L.tell

Has(p) == l[p].ph \in {"shown", "open", "leaving"}
(* It may have been written at any time before the first one reads it: just then is as good. *)
ReadIt(p) ==
  /\ ~l[p].read
  /\ LET L == l[p] M == IF L.ph = "open" THEN Send(L) ELSE Seek(L) IN Put([M EXCEPT !.read = TRUE])
  /\ written' = TRUE /\ two' = (two \/ (~written /\ \E q \in P : Has(q) /\ \E i \in DOMAIN log : log[i].k # q /\ log[i].st > l[q].ep))
  /\ lag' = (lag \/ l[p].wr)
  /\ UNCHANGED <<log, n>>
Unasked(L) == [L EXCEPT !.quest = FALSE, !.qend = 0, !.qborn = 0, !.qtold = FALSE, !.qoff = FALSE]
Resolve ==
  LET L == l[Owner] f == Find(L, L.qborn, L.qtold, L.qoff)
      N == Unasked(L)
      M == IF f.left THEN Hear(N, TRUE) ELSE N
  IN /\ L.quest /\ L.pos >= L.qend
     /\ Put(IF f.here THEN Tells(M) ELSE IF f.before THEN Reconsider(M) ELSE M)
     /\ UNCHANGED <<log, written, lag, two, n>>

Connect(p, clean) ==
  /\ n < Connections /\ ~(Away /\ p = Owner) /\ l[p].ph = "idle" /\ (clean => \E i \in DOMAIN log : log[i].exp)
  /\ LET own == Book(l[p])
     IN log' = Append(log, [own EXCEPT !.k = p, !.claim = Len(log) + 1, !.rel = FALSE, !.wd = FALSE, !.clean = clean])
  /\ Put([l[p] EXCEPT !.ph = "claim", !.ep = Len(log) + 1, !.oat = 0, !.pres = FALSE, !.met = FALSE, !.req = l[p].heard])
  /\ n' = n + 1 /\ UNCHANGED <<written, lag, two>>
(* The record that opens the session is written, once nothing is undecided that it resumes. *)
Open(p, exp) ==
  LET L == IF Sure /\ l[p].quest THEN Unasked(Hear(l[p], TRUE)) ELSE l[p] top == Top(L.tab)
      base == IF top.ended THEN NoRec ELSE top
      resumes == base # NoRec /\ base.exp /\ ~Entry(L.tab, p).clean
      floor == Max({0} \cup {r.st : r \in {e \in Entries(L.tab) : e.k = p \/ Settled(e)}})
      undecided == {r \in Entries(L.tab) : r.k # p /\ ~Settled(r) /\ r.claim >= floor /\ r.claim <= L.ep}
      s == IF resumes THEN [base EXCEPT !.gap = @ \/ (L.req /\ ~base.reach), !.exp = TRUE] ELSE [NoRec EXCEPT !.began = L.ep, !.beg = L.req, !.exp = exp]
  IN /\ L.ph = "claim" /\ L.pos >= L.ep /\ ~Higher(L.tab, p, L.ep) /\ (resumes => undecided = {} /\ exp)
     /\ log' = Append(log, [s EXCEPT !.k = p, !.claim = L.ep, !.st = L.ep, !.clean = Entry(L.tab, p).clean, !.rel = FALSE, !.wd = FALSE,
                                     !.ended = FALSE, !.offl = FALSE, !.ends = FALSE])
     /\ Put([L EXCEPT !.ph = "shown", !.oat = Len(log) + 1, !.pres = resumes, !.wr = @ \/ (written /\ ~L.read), !.past = IF resumes THEN @ ELSE base, !.over = @ /\ resumes])
     /\ two' = (two \/ \E i \in DOMAIN log : log[i].k # p /\ ~log[i].tomb /\ log[i].claim > L.ep) \* it has lost already
     /\ UNCHANGED <<written, lag, n>>
Opens(L) == \* its record is read back
  LET state == Book(L)
      A == [L EXCEPT !.ph = "open", !.born = IF L.pres THEN @ ELSE L.ep, !.over = L.past # NoRec]
      B == Ahead(A, (L.pres /\ (state.reach \/ (state.beg /\ ~Mine(L)))) \/ \E r \in Entries(L.tab) : r.ended /\ r.ends)
  IN TellPast(SettleHeard(B))
Answer(p) ==
  /\ Slow /\ l[p].ph = "shown" /\ l[p].pos >= l[p].oat /\ ~Higher(l[p].tab, p, l[p].ep) /\ Put(Opens(l[p]))
  /\ UNCHANGED <<log, written, lag, two, n>>
(* An attempt ends: another one has the client ID, or nobody waits for it any more. *)
GiveUp(p) ==
  LET L == l[p] own == Book(L) lost == Higher(L.tab, p, L.ep) IN
  /\ GiveUps \/ lost
  /\ \/ L.ph = "claim" /\ L.pos >= L.ep
        /\ log' = Append(log, IF own.st = 0 THEN [NoRec EXCEPT !.k = p, !.tomb = TRUE] ELSE [own EXCEPT !.wd = TRUE])
     \/ L.ph = "shown" /\ (L.pos >= L.oat \/ ~lost)
        /\ log' = Append(log, IF L.pres THEN [own EXCEPT !.rel = TRUE, !.offl = TRUE, !.reach = @ \/ L.met]
                    ELSE [own EXCEPT !.rel = TRUE, !.offl = TRUE, !.ended = TRUE, !.exp = FALSE, !.ends = L.met, !.beg = @ /\ L.met, !.gap = @ /\ L.met])
  /\ Put([L EXCEPT !.ph = "idle", !.req = FALSE, !.ep = 0, !.oat = 0, !.pres = FALSE, !.met = FALSE])
  /\ UNCHANGED <<written, lag, two, n>>
Leave(p) == /\ Slow /\ l[p].ph = "open" /\ Put([l[p] EXCEPT !.ph = "leaving"]) /\ UNCHANGED <<log, written, lag, two, n>>
Depart(p, exp) ==
  LET L == l[p] own == Book(L)
      s == [own EXCEPT !.rel = TRUE, !.offl = TRUE, !.exp = exp, !.ended = ~exp]
  IN /\ L.ph = IF Slow THEN "leaving" ELSE "open"
     /\ (exp => own.exp)
     /\ log' = Append(log, IF exp THEN [s EXCEPT !.reach = @ \/ L.met]
                 ELSE IF Lasting(L) THEN [s EXCEPT !.ends = L.met \/ (L.read /\ ~(Truth /\ (L.open \/ L.quest)))]
                 ELSE [s EXCEPT !.ends = L.met, !.beg = @ /\ (L.met \/ Some), !.gap = @ /\ (L.met \/ Some)])
     /\ Put([L EXCEPT !.ph = "idle", !.req = FALSE, !.ep = 0, !.oat = 0, !.pres = FALSE, !.met = FALSE])
     /\ UNCHANGED <<written, lag, two, n>>
Remove(p) ==
  LET L == l[p] e == Entry(L.tab, p) top == Top(L.tab) IN
  /\ Tombs /\ L.ph = "idle" /\ LastOwn(L) <= L.pos /\ e # NoRec
  /\ IF e.st = 0 \/ e.st < top.st THEN (top # NoRec /\ e.claim < top.st) \/ Settled(e)
     ELSE Entries(L.tab) = {e} /\ e.ended
  /\ log' = Append(log, [NoRec EXCEPT !.k = p, !.tomb = TRUE])
  /\ UNCHANGED <<l, written, receipts, lag, two, n>>

(* A record of the sessions is read. *)
LastWord(L, k) ==
  LET e == Entry(L.tab, k)
  IN [L EXCEPT !.births = [i \in DOMAIN @ |->
       IF @[i].past # NoRec /\ @[i].past.k = k /\ ~IsLast(@[i].past) /\ e # NoRec /\ e.st = @[i].past.st THEN [@[i] EXCEPT !.past = e] ELSE @[i]]]
Overtaken(L, k) == [L EXCEPT !.qtold = @ \/ (L.quest /\ Entry(L.tab, k).st > 0 /\ Offered(Entry(L.tab, k)))]
Begun(L, kept) ==
  LET top == Top(L.tab)
      concerns == L.open \/ (top.beg /\ ~L.read) \/ L.quest
  IN IF top # NoRec /\ top.st > kept.st /\ Opened(top) /\ (top.beg \/ Some) /\ top.began = top.st /\ concerns
     THEN [L EXCEPT !.births = <<[epoch |-> top.began, beg |-> top.beg, past |-> kept, told |-> L.ahead, is |-> TRUE]>> \o @]
     ELSE L
Gap(L, k, was) ==
  LET e == Entry(L.tab, k) IN IF e.ended /\ e.st # was THEN Ahead(L, e.ends) ELSE L
Follow(p) ==
  LET L == l[p] kept == Top(L.tab) k == log[L.pos + 1].k
      e == Entry(L.tab, k)
      A == [L EXCEPT !.pos = @ + 1, !.tab[k] = IF log[L.pos + 1].tomb THEN NoRec ELSE log[L.pos + 1]]
      B == IF Holder(A) THEN A ELSE [A EXCEPT !.born = 0, !.past = NoRec, !.over = FALSE]
      Rest(C) == LET D == LastWord(C, k)
                     E == IF k = p THEN D ELSE Gap(Begun(Overtaken(D, k), kept), k, IF e.ended THEN e.st ELSE 0)
                 IN Reconsider(E)
  IN /\ L.pos < Len(log)
     /\ \/ (Slow \/ B.ph # "shown" \/ B.pos < B.oat \/ Higher(B.tab, p, B.ep)) /\ Put(Rest(TellPast(B)))
        \/ B.ph = "shown" /\ B.pos = B.oat /\ ~Higher(B.tab, p, B.ep) /\ Put(Rest(TellPast(Opens(B))))
     /\ UNCHANGED <<log, written, lag, two, n>>

Done == \A p \in P : l[p].read /\ ~l[p].open /\ ~l[p].quest
Next == /\ ~Done
        /\ \/ Resolve
           \/ \E p \in P : \/ ReadIt(p) \/ Answer(p) \/ GiveUp(p) \/ Leave(p) \/ Remove(p) \/ Follow(p)
                           \/ \E b \in BOOLEAN : Connect(p, b) \/ Open(p, b) \/ Depart(p, b)
Spec == Init /\ [][Next]_vars
Alike == Permutations(Others)

Quiet == /\ ~l[Owner].quest
         /\ \A p \in P : l[p].read /\ l[p].pos = Len(log) /\ l[p].ph \in {"idle", "open"}
         /\ \A p \in P : l[p].ph = "open" => ~Higher(l[p].tab, p, l[p].ep)
AtLeastOnce == Done \/ Quiet => receipts > 0 \/ (two /\ l[Owner].open) \* it tells when the connection ends
AtMostOnce == lag \/ two \/ receipts <= 1
AtMostTwice == receipts <= 2
=============================================================================
