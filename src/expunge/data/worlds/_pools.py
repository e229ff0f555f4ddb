"""Word pools of the authors world. Everything composed from them is fictitious."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(";"))


SHE = _words(
    """Adwoa Agnetha Alondra Anneliese Babette Beatriz Branwen Calista Chiamaka Cosima Damaris
    Delphine Dunja Efua Eilidh Esperanza Fenna Filippa Ghislaine Giulietta Hadiza Henrike Ilse
    Imelda Ioanna Jacinta Kalinda Katarzyna Leocadia Liesbeth Maribel Mehwish Nadezhda Noor
    Odile Ottilie Parisa Philippa Quenby Rosalind Sanaa Saoirse Sunniva Tamsin Ulrike Vashti
    Wilhelmina Xiomara Yevgenia Zaynab"""
)
HE = _words(
    """Absalom Aurelio Bartholomew Benedikt Casimir Chukwudi Cornelius Dagfinn Dimitrios Ebenezer
    Emeka Evander Faisal Florian Gaspard Gethin Hamish Hideo Ignatius Ismael Jorik Joaquim
    Kwabena Kaspar Lazlo Leopold Matthias Mircea Nikolai Nnamdi Obadiah Oswin Pascal Percival
    Quillan Radoslav Rufus Sandor Stellan Tadeusz Thaddeus Umberto Uriah Valentin Vikram Wendell
    Witold Xavier Yusuf Zoltan"""
)
SURNAMES = _words(
    """Abernethick Adeyokun Alvarengo Amsterwood Arkwell Balogoun Bassarin Belorukov Birdsallow
    Bracegale Brankowitz Calloway-Ruiz Castellbrun Chidzanga Corvelli Crannoch Daubermann
    Delacourse Dimitrescou Dunmarrow Ehrenfold Eskelund Etcheverral Fairweatherly Farouqi
    Fennimark Ferranzo Gaikward Galbraithe Ghorbanian Glimmerdal Gorostegui Haldorsen Hartigrew
    Hollenbeek Hrubesky Igwebuke Illingmoor Inchcape Iwasetani Jankulov Jarlsborg Jellicoat
    Kanakaredi Kestelholt Kilbrannan Kowalecki Kurbanov-Lys Lachenmeer Larkspurrow Lindqvister
    Lomarenko Maccabrin Malinverno Mbekwana Merriwold Mikkelthun Nakashiro Navarrese Netherclift
    Nwaforo Oakenshall Odunlamy Okparanta-Voss Orsolini Ostrander Pallisterio Penhalvean
    Petrosyants Pomfreth Quagliaro Quartermane Quispelunas Radcliveden Rasmundsen Rietvelder
    Rosenquill Sabharwari Saltonstrand Sarkissow Sigurjonas Szymborek Tanglewell Tavistoke
    Teklemarian Thornquister Tremontaigne Uchendway Ulvestad Umarovich Vandermeule Vasconi
    Villagrande Wadebridger Wexcombe Wolstenhume Xanthakis Yarborne Yusupovich Zabriskov
    Zeffiretti Zwartkop"""
)
MENTOR_FIRST = _words(
    """Abel Ambrose Annika Basil Celeste Clement Dorothea Edda Elspeth Ephraim Felix Greta Hector
    Isolde Jasper Juno Kasimira Lucian Magda Mordecai Nestor Olympia Orla Phineas Renata Silas
    Theodora Ursula Viggo Winifred"""
)
MENTOR_LAST = _words(
    """Ashgrove Bellwether Brisk Caldera Coldwater Dovetail Elderkin Fallowfield Fennel Goldfinch
    Halfpenny Hawthornden Inkpen Juniper Kettlewick Lambswool Larkin-Moss Mandrake Nettlefold
    Oxbow Partridge Peppercorn Quickthorn Ravenscar Sandpiper Tallow Thistlewood Underhay
    Vintner Waxwing Wormwood Yellowhammer"""
)

TOWN_HEADS = _words(
    """Ald Bel Bram Cor Dun Esk Fal Gar Hal Hest Ist Jor Kel Kor Lind Lor Mar Mer Nar Nev Olm Or
    Pel Quill Rav Ros Sel Sol Tarn Tol Ul Ur Val Vel Vesk Wend Wyr Yar Zel Zor"""
)
TOWN_TAILS = _words(
    """abad amar anto avik borg bury dale enka eppo erra etsk gate grad haven holm ika ille inga
    ista low mere mond mouth oro ossa stow usk vaara ville wick"""
)
TRADES = _phrases(
    """salt-mining; silk-weaving; glass-blowing; sheep-farming; bell-founding; paper-milling;
    tobacco-drying; apple-growing; slate-cutting; copper-smelting; cheese-making; rope-twisting;
    umbrella-making; bee-keeping; horse-trading; clock-making; quarrying; brewing;
    amber-carving; indigo-dyeing; tea-planting; garlic-growing; button-making; ice-cutting;
    lace-making; piano-building; olive-pressing; kite-making; oyster-farming; saffron-picking"""
)
SETTLEMENTS = _phrases(
    """village; hamlet; market town; hill town; border town; railway town; valley; suburb; parish;
    garrison town; river town; settlement"""
)
REGIONS = _phrases(
    """northern Estonia; the Azores; eastern Anatolia; Galicia; upper Egypt; Saskatchewan;
    Patagonia; the Faroe Islands; Bohemia; Transylvania; coastal Ghana; Kerala; Hokkaido;
    Tasmania; Sardinia; the Scottish Borders; central Mongolia; Oaxaca; Lapland; Brittany;
    western Kenya; the Ardennes; Punjab; southern Chile; the Basque Country; Yunnan; Silesia;
    Corsica; Nebraska; Friesland; the Rif mountains; Newfoundland; Zanzibar; Thessaly;
    Carinthia; Sichuan"""
)
MONTHS = _words("""January February March April May June July August September October November December""")
EVENTS = _phrases(
    """during a total eclipse; on the eve of a ferry strike; in the middle of a hailstorm; while
    the town hall burned; during a brass band contest; shortly after an earthquake; in a
    stranded night train; while a circus was unloading; during a three-day power cut; between
    two rounds of an election; in the back of a bakery van; as a comet crossed the sky; during a
    plague of moths; on the day the bridge reopened; in a borrowed fishing boat; while the choir
    rehearsed Handel; during the wettest week on record; minutes before a twin brother; on board
    a cargo steamer; during a chess tournament; in a hotel lift stuck between floors; while
    floodwater filled the cellar; on the last day of the sugar ration; during a census of
    storks; in the waiting room of a dentist; as fog closed the harbour; behind the curtain of a
    puppet theatre; during a strike of telephone operators; while two uncles argued over chess;
    on the morning of a wedding; in a customs shed; during the annual cattle fair; under the
    dome of an observatory; in a queue for cinema tickets"""
)
MODES = _phrases(
    """nautical; rural; satirical; epistolary; gothic; subarctic; courtroom; pastoral; clockwork;
    monastic; suburban; alpine; culinary; botanical; wartime; Victorian; bureaucratic; desert;
    theatrical; archaeological; musical; submarine; circus; railway; medieval; futuristic"""
)
GENRES = _phrases(
    """ghost stories; detective novels; fables; love stories; spy thrillers; verse dramas; sagas;
    comedies of manners; travelogues; fairy tales; essays; family chronicles; science fiction;
    horror novellas; ballads; picaresque novels; radio plays; prose poems; tragedies; farces;
    children's adventures; westerns; mock biographies; riddles; heist novels; utopias"""
)
FLAVOURS = _phrases(
    """dry legal humour; forgotten sea shanties; unreliable maps; antique recipes; talking
    birds; chess problems; exact weather reports; family curses; invented proverbs; slow train
    journeys; moss and lichen; mistaken identities; debts of honour; bell-ringing patterns; card
    tricks; stolen heirlooms; long footnotes; dreams of flight; ancient grammar; forged letters;
    astronomical tables; tender insults; village gossip; quiet revenge; broken machinery; coded
    crosswords; rivalry between cooks; lost dogs; medicinal herbs; missing staircases; double
    bookkeeping; unsent telegrams"""
)

TITLE_ADJECTIVES = _words(
    """Amber Bitter Borrowed Brass Broken Burning Cobalt Crooked Drowned Empty Fallow Forgotten
    Frozen Gilded Hollow Hungry Indigo Iron Ivory Last Latched Luminous Midnight Narrow Obedient
    Painted Pale Patient Quiet Restless Rusted Salted Scarlet Second Silent Sleeping Stolen
    Sunken Tin Unfinished Velvet Wandering White Wooden"""
)
TITLE_NOUNS = _words(
    """Almanac Anchor Archive Bell Bridge Cartographer Chandelier Choir Compass Corridor Dovecote
    Engine Feather Ferry Garden Ghost Hinge Sundial Island Kettle Key Ladder Lantern Ledger
    Lighthouse Lock Mirror Moth Needle Orchard Oven Pendulum Piano Planet River Saddle Signal
    Staircase Suitcase Telescope Theorem Thimble Umbrella Violin Wardrobe Weathervane Well
    Windmill"""
)
TITLE_WORKERS = _words(
    """Apothecary Beekeeper Bellringer Bookbinder Chambermaid Cooper Diver Drummer Envoy Falconer
    Gardener Gravedigger Harpist Inspector Juggler Lacemaker Locksmith Magistrate Midwife Miller
    Navigator Organist Pilgrim Ropewalker Shepherd Stationmaster Tailor Translator Usher
    Wheelwright"""
)
TITLE_NUMBERS = ("Two", "Three", "Four", "Five", "Seven", "Nine", "Eleven", "Twelve", "Forty")
TITLE_PATTERNS = (
    "The {adjective} {noun} of {place}",
    "The {worker}'s {adjective} {noun}",
    "{number} {adjective} {noun}s",
    "{number} {noun}s in {place}",
    "A(n) {noun} for the {worker}",
    "Beneath the {adjective} {noun}",
    "What the {worker} Left in {place}",
    "The {noun} and the {adjective} {other}",
    "A(n) {adjective} {noun} in {place}",
    "The {worker} of {place}",
    "No {noun} Without a(n) {other}",
)
IMPRINTS = ("Press", "House", "Books", "and Daughters", "Editions", "Brothers", "Library", "Verlag")

PRIZE_OBJECTS = _words(
    """Acorn Anvil Candle Comet Feather Garland Hammer Heron Inkwell Lantern Laurel Magpie Otter
    Owl Paperknife Pearl Quill Rowan Scroll Sickle Sparrow Thistle Trident Willow"""
)
AWARDS = ("Prize", "Medal", "Award", "Cup", "Ribbon", "Bursary")
CATEGORIES = _phrases(
    """short fiction; debut prose; translated verse; regional drama; comic writing; nature writing;
    historical fiction; dialogue; children's verse; opening chapters; experimental prose; stage
    comedy; lyrical essays; suspense; seafaring tales; political satire; last lines; serial
    fiction; invented languages; letters and diaries"""
)
JOBS = _phrases(
    """clockmaker; harbour pilot; tax inspector; beekeeper; violin repairer; canal engineer;
    dentist; night watchman; cartographer; pastry cook; glazier; piano tuner; bus conductor;
    surveyor; seed merchant; falconer; court stenographer; upholsterer; crane operator;
    botanist; locksmith; opera prompter; pharmacist; stonemason; telegraph clerk; fencing
    teacher; umbrella seller; goat farmer; optician; ballet pianist; train driver; bookbinder;
    chimney sweep; meteorologist; cheesemonger; diplomat; puppeteer; well digger; typesetter;
    midwife; racing cyclist; hatter; organ builder; ferry captain; judge; wallpaper printer;
    lexicographer; mushroom grower; welder; astronomer; auctioneer; tram mechanic; marriage
    registrar; basket weaver; toy designer; customs officer; veterinarian; carpet dealer; ski
    instructor; perfumer; school caretaker; lift attendant; geologist; chess coach; sign
    painter; herring smoker; actuary; jockey; ice-cream vendor; roof thatcher; sound engineer;
    stamp dealer; swimming teacher; tea taster"""
)
TEMPERS = _phrases(
    """retired; reclusive; near-sighted; cheerful; disgraced; elderly; itinerant; bankrupt;
    ambitious; insomniac; forgetful; left-handed; exiled; widowed; boastful; absent-minded;
    colour-blind; stubborn; self-taught; runaway; penniless; superstitious; shy; celebrated"""
)
LESSONS = _phrases(
    """to cut every adverb; to read drafts aloud; to steal from the weather; to begin with the
    ending; to distrust metaphors; to write only standing up; to burn the first chapter; to
    count syllables; to eavesdrop on trams; to name every tree; to keep a dream diary; to finish
    before breakfast; to write for one aunt; to leave rooms unexplained; to copy out
    dictionaries; to spare no villain; to describe hands before faces; to let animals speak; to
    avoid the present tense; to revise by candlelight; to memorise railway timetables; to end on
    a question; to draw maps before plots; to never explain a joke; to listen for pauses; to
    fear round numbers; to trust minor characters; to write letters daily; to walk ten miles a
    week; to sleep on commas"""
)
PASSIONS = _phrases(
    """jealousy; loyalty; buried guilt; homesickness; ambition; forgiveness; stubborn hope; shame;
    slow courtship; betrayal; inherited debt; silence; rivalry; late friendship; superstition;
    envy; mutual suspicion; lost faith; greed; unspoken grief; boredom; gratitude; vanity;
    nostalgia; false memory; divided duty"""
)
PEOPLE = _phrases(
    """lighthouse keepers; estranged sisters; retired soldiers; village doctors; river smugglers;
    orchestra musicians; stepbrothers; polar explorers; boarding-school cooks; monks; tenant
    farmers; travelling salesmen; deaf composers; twin fishermen; hotel porters; widowed queens;
    apprentices; stranded sailors; forgers; beekeepers; grandmothers; bank clerks; deserters;
    acrobats; botanists; night nurses; quarry workers; emigrants; chess masters; ferrymen"""
)
SITUATIONS = _phrases(
    """during endless winters; after a great flood; in times of drought; on remote islands; behind
    monastery walls; in shrinking towns; on the night shift; after a disputed will; along closed
    railway lines; before a volcanic eruption; in crowded lodging houses; under a foreign flag;
    at the edge of deserts; in the shadow of dams; during harvest; after the gold runs out;
    across three generations; in the theatre; on long sea voyages; in a house for sale; under
    censorship; at high altitude; in peacetime; during a trial"""
)
HOURS = _phrases(
    """before dawn; after midnight; at noon; during thunderstorms; between two naps; on Sundays;
    after a cold swim; at low tide; during the siesta; on market days; before supper; in winter
    only; straight after breakfast; at dusk; on sleepless nights; between church bells"""
)
PLACES = _phrases(
    """a disused signal box; a hayloft; the reptile house of a zoo; a parked caravan; a laundry; an
    empty swimming pool; a bell tower; a greenhouse; a railway buffet; a windowless pantry; a
    rowing boat; a museum cloakroom; a barber's back room; a treehouse; a chapel crypt; a
    garage; a public aquarium; a disused bakery; a mountain hut; a hospital canteen; a
    houseboat; an attic; a potting shed; a billiard hall; a cable car; a cinema foyer; a boiler
    room; a walled orchard"""
)
TOOLS = _phrases(
    """with green ink on ledger paper; with a pencil stub; on a Cyrillic typewriter; with chalk on
    slate; dictating to a parrot; on the backs of tickets; with a goose quill; on butcher's
    paper; with a stopwatch running; on index cards; with purple crayons; on a portable telex;
    in mirror writing; on old sheet music; with both feet in hot water; into a wax-cylinder
    recorder; in shorthand; on unpaid bills; with a fountain pen named Otto; on rolls of
    wallpaper; wearing fingerless gloves; on a braille machine; on nautical charts; with a
    metronome ticking"""
)
LANGUAGES = _words(
    """Amharic Armenian Basque Bengali Breton Bulgarian Catalan Danish Estonian Faroese Finnish
    Frisian Georgian Greek Hausa Hungarian Icelandic Kazakh Khmer Korean Latvian Maltese
    Mongolian Nahuatl Nepali Occitan Portuguese Quechua Romansh Sinhala Slovene Swahili Tagalog
    Tamil Turkish Welsh Yoruba Zulu"""
)
SOURCES = _phrases(
    """from a lodger who mended radios; from a great-aunt; from crossword books; from sailors in
    port; from a stepfather; from subtitled films; from a prison chaplain; from a box of love
    letters; from shortwave broadcasts; from an exiled prince; from opera records; from a
    travelling barber; from cookery books; from a deaf neighbour; from a football coach; from
    tram advertisements; from a pen friend; from hymn sheets; from an uncle at sea; from chess
    magazines; from seed catalogues; from a night porter; from comic strips; from a rival poet"""
)
QUESTS = _phrases(
    """forges a royal map; inherits a haunted vineyard; marries the wrong twin; hides a stolen
    cello; loses a kingdom at cards; wakes in another century; teaches a crow to testify; sues
    the sea; builds a staircase to nowhere; adopts the son of an enemy; smuggles books across a
    glacier; counts the dead of a village; sells shadows to tourists; falls in love with a voice
    on the radio; finds a door under a lake; impersonates a dead general; walks backwards to the
    capital; translates the language of bees; steals the town clock; refuses to leave a sinking
    hotel; writes letters to the moon; digs a tunnel to the opera; raises a wolf as a lapdog;
    elopes with a tax collector; misplaces a cathedral; wins a duel by mistake; defends a
    scarecrow; cures a duke of truthfulness; collects the last words of strangers; cheats at a
    beauty contest; searches for a brother lost in fog; buys back a sold name"""
)
DISHES = _phrases(
    """smoked eel with horseradish; pumpkin dumplings; cold beetroot soup; roast quail with figs;
    lentils and burnt onions; pickled herring on rye; saffron rice pudding; goat curry; chestnut
    pancakes; fried plantain with lime; rabbit in mustard; cabbage pie; barley porridge; grilled
    octopus; walnut noodles; plum soup; mutton stew with dill; cardamom buns; stuffed quinces;
    sour cherry strudel; black pudding with apples; okra fritters; chilled cucumber broth;
    buckwheat waffles; baked trout with almonds; peppered turnips; seaweed omelette; oxtail pie;
    rhubarb trifle; aubergine jam on toast; poached pears; mussels in cider"""
)
PASTIMES = _phrases(
    """restoring barometers; breeding pigeons; mapping hedgerows; carving spoons; playing the
    bassoon; collecting bus tickets; judging dog shows; folding paper cranes; growing giant
    leeks; fencing; repairing accordions; bird-ringing; wild swimming; rebinding atlases;
    solving chess studies; training sheepdogs; brewing nettle beer; photographing doorways;
    knitting socks; flying kites; pressing seaweed; racing snails; tuning harpsichords; juggling
    oranges; canoeing; learning Morse; cataloguing clouds; polishing telescopes; dancing the
    polka; setting crosswords"""
)
