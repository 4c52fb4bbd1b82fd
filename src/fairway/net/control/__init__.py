"""How the tasks of a training tell each other who is there, who is lost, and how it ended.

TensorFlow neither says who is missing, nor notices a peer that hangs, nor ends its servers. So the lead
listens one port above its TensorFlow server (`server.Control`), and every other task keeps one connection to
it for as long as it lives (`client.Membership`). They speak JSON, one object a line (`messages`):

    follower                                lead
    join {task}                →
                               ←            offer {…}; or busy, failed, done
    ready {…}                  →
                               ←            waiting {for}, whenever that changes
                               ←            start
    failed, leaving {signal}   →
                               ←            lost {task, reason}, back {task}, failed, done

Both send `ping` all the time: who is silent for long is lost, whatever its connection looks like.
An `observe` instead of a `join` subscribes to what the lead says to all, and to its `event`s.
"""
