"""Function words left out of the keyword index, by ISO 639-1 code.

English is Lucene's list. The others are short on purpose: a missing word costs a little space (IDF
mutes it), a wrong one makes a document unfindable.
"""

from __future__ import annotations

_LISTS = {
    "en": """a an and are as at be but by for if in into is it no not of on or such that the their then
        there these they this to was will with""",
    "de": """aber als am an auch auf aus bei bin bis bist da dann das dass dem den der des die dies diese
        diesem diesen dieser dieses doch du durch ein eine einem einen einer eines er es für hat hatte
        ich ihr im in ist ja kein keine mit nach nicht noch nur ob oder sein seine sich sie sind so über
        um und uns unter vom von vor war waren was wenn werden wie wir wird zu zum zur""",
    "fr": """à au aux avec ce ces cette dans de des du elle elles en est et eux il ils je la le les leur
        leurs lui mais me même mes mon ne nos notre nous on ont ou par pas pour qu que qui sa sans se
        ses si son sont sur ta te tes toi ton tu un une vos votre vous y été être""",
    "es": """a al ante como con cual de del desde donde el ella ellas ellos en entre era es esa ese eso
        esta este esto fue ha han hasta la las le les lo los más me mi muy ni no nos o para pero por
        porque que quien se ser si sin sobre son su sus también te un una uno y ya""",
    "it": """a ad agli ai al alla alle allo anche che chi ci come con da dagli dai dal dalla dalle dallo
        degli dei del della delle dello di e ed è gli ha hanno i il in io la le lei lo loro lui ma mi ne
        nei nel nella nelle nello noi non o per più se si sono su sua sue sui sul sulla suo tra un una
        uno voi""",
    "pt": """a ao aos as à às com como da das de dela dele do dos e é ela elas ele eles em entre era essa
        esse esta este eu foi há isso isto já mais mas me na nas não nem no nos o os ou para pela pelas
        pelo pelos por que quem se sem ser seu seus só sua suas também te um uma""",
    "nl": """aan al als bij dan dat de der deze die dit door een en er geen had heeft hem het hij hoe hun
        ik in is je kan maar me met mijn na naar niet nog nu of om onder ons ook op over te tot u uit
        van veel voor was wat we wel wij werd wie wordt ze zich zij zijn zo zou""",
    "sv": """alla att av blir de dem den denna deras dess det detta dig din du där efter ej eller en er ett
        från för ha hade han hans har hon hur här i icke inom inte jag kan man med men mig min mot
        mycket ni nu när någon något om oss på sedan sig sin skulle som så till under upp ut vad var
        vara vi vid är över""",
    "da": """af alle at blev bliver da de dem den denne der deres det dette dig din dog du efter eller en
        end er et for fra ham han hans har havde hende her hun hvad hvis hvor i ikke ind jeg jer kan man
        med men mig min mod når og også om op os over på sig sin skal som sådan til ud under var vi vil
        ville være""",
    "no": """alle at av ble bli de dem den denne der deres det dette deg din du da eller en enn er et etter
        for fra før ha hadde han hans har hun hva hvis hvor i ikke inn jeg kan man med men meg min mot
        når og også om opp oss over på seg sin skal som så til ut under var vi vil ville være""",
    "fi": """ei eli en että he hän ja jo joka jos kanssa koska kuin kun me mikä mitä mutta myös ne niin nyt
        ole oli olla on ovat se sekä sen siitä sinä tai te tämä vaan vain""",
    "ru": """а без более бы был была были было быть в вам вас ведь весь во вот все всего вы где да даже для
        до его ее её если есть еще ещё же за здесь и из или им их к как ко когда кто ли либо мне может
        мы на надо наш не него нее нет ни них но ну о об однако он она они оно от очень по под при с со
        так также такой там те тем то того тоже той только том ты у уже хотя чего чей чем что чтобы эта
        эти это я""",
    "tr": """ama ancak bu bir biri birçok çok çünkü da daha de değil diye en gibi hem hep her hiç için ile
        ise kadar ki mi mı mu mü ne o olarak olan sonra şu ve veya ya yani""",
}

STOPWORDS: dict[str, frozenset[str]] = {code: frozenset(words.split()) for code, words in _LISTS.items()}
