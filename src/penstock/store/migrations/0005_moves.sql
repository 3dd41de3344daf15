-- A house that moves here from a home folder (penstock migrate): where it stands, and by how much
-- each partition's offsets are lower here. A record at offset n there lies at n - first; so many
-- records as `copied` came along (unknown until the switch), later ones were made here.
CREATE TABLE moves(
  id text COLLATE "C" PRIMARY KEY, prefix text NOT NULL,
  state text COLLATE "C" NOT NULL CHECK (state IN ('copying', 'switched', 'returned')),
  at timestamptz NOT NULL DEFAULT clock_timestamp());

CREATE TABLE moved_offsets(
  move text COLLATE "C" NOT NULL REFERENCES moves ON DELETE CASCADE,
  topic text COLLATE "C" NOT NULL, partition integer NOT NULL, first bigint NOT NULL,
  copied bigint,
  PRIMARY KEY (move, topic, partition));

-- Until the switch, and after a return, nobody works here: every claim and every commit writes
-- `owners`, which has this trigger for that time.
CREATE FUNCTION refuse_moving() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF coalesce(current_setting('penstock.moving', true), '') <> 'on' THEN
    RAISE EXCEPTION 'a house is being moved here, and was not switched yet'
      USING ERRCODE = 'PE003';
  END IF;
  RETURN NULL;
END $$;
