-- What a commit checks. These raise inside the commit's own statement, so that the COMMIT sent
-- behind it in the same round trip finds a failed transaction and cannot commit.

-- Hold the lanes, check their epochs, number the transaction, write the positions (null: they
-- stay). The number is taken when all lanes are held and not before: whoever holds all lanes of a
-- scope knows that no lower number is still on its way.
CREATE FUNCTION advance(of_scope integer, lanes integer[], epochs bigint[], texts text[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  held bigint;
  number bigint;
BEGIN
  SELECT count(*) INTO held FROM (
    SELECT 1 FROM owners o JOIN unnest(lanes, epochs) AS v(lane, epoch)
      ON o.lane = v.lane AND o.epoch = v.epoch
    WHERE o.scope = of_scope ORDER BY o.lane FOR NO KEY UPDATE OF o) AS found;
  IF held <> cardinality(lanes) THEN
    RAISE EXCEPTION 'a lane of % was claimed by another owner', lanes USING ERRCODE = 'PE001';
  END IF;
  number := nextval('txns');
  UPDATE owners o SET txn = number, positions = coalesce(v.text::jsonb, o.positions)
  FROM unnest(lanes, texts) AS v(lane, text)
  WHERE o.scope = of_scope AND o.lane = v.lane;
  RETURN number;
END $$;

-- Were as many documents written as were meant to be? One fewer, and another transaction made or
-- changed it meanwhile.
CREATE FUNCTION expect(written bigint, wanted bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF written <> wanted THEN
    RAISE EXCEPTION '% of % documents were changed by another transaction',
      wanted - written, wanted USING ERRCODE = 'PE002';
  END IF;
  RETURN true;
END $$;

-- A stored body as JSON, null where it is none.
CREATE FUNCTION as_json(body bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
BEGIN
  RETURN convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN others THEN
  RETURN NULL;
END $$;

CREATE FUNCTION as_time(milliseconds bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT
PARALLEL SAFE AS $$ SELECT to_timestamp(milliseconds / 1000.0) $$;
