"""The table of countries: complete by the counts its sources state, and found by the words people write."""

import collections

import pytest

from retfound_jax.core import countries
from retfound_jax.core.countries import find


def test_the_table_is_complete():
    everything = countries.countries()
    # ISO 3166-1 has 249 codes, and XK beside them; the WHO has 194 member states, these many in each region.
    assert len(everything) == 250 == len({country.alpha3 for country in everything.values()}) == len({c.name for c in everything.values()})
    members = collections.Counter(country.region for country in everything.values() if country.member)
    assert members == {'AFR': 47, 'AMR': 35, 'SEAR': 10, 'EUR': 53, 'EMR': 21, 'WPR': 28}
    assert all(len(code) == 2 and len(c.alpha3) == 3 and c.region in countries.REGIONS for code, c in everything.items())
    assert all(everything[code].member for code in countries._POPULOUS)


def test_no_word_means_two_countries():
    seen = {}
    for country in countries.countries().values():
        for word in (country.alpha2, country.alpha3, country.name, *filter(None, countries._WORDS.get(country.alpha2, '').split(', '))):
            assert seen.setdefault(countries._plain(word), country.alpha2) == country.alpha2, word
            assert find(word) is country and find(f'  {word.upper()} ') is country


@pytest.mark.parametrize(
    ('word', 'code'),
    [
        ('UK', 'GB'), ('u.k.', 'GB'), ('England', 'GB'), ('USA', 'US'), ('U.S.A.', 'US'), ('United States of America', 'US'),
        ('South Korea', 'KR'), ('Korea, Republic of', 'KR'), ("Democratic People's Republic of Korea", 'KP'), ('Viet Nam', 'VN'),
        ('Vietnam', 'VN'), ('Côte d’Ivoire', 'CI'), ('Ivory Coast', 'CI'), ('Iran (Islamic Republic of)', 'IR'), ('中国', 'CN'),
        ('Türkiye', 'TR'), ('turkey', 'TR'), ('St. Lucia', 'LC'), ('Trinidad & Tobago', 'TT'), ('The Gambia', 'GM'), ('DRC', 'CD'),
        ('Democratic Republic of the Congo', 'CD'), ('Republic of the Congo', 'CG'), ('Tanzania, United Republic of', 'TZ'),
        ('Republic of Ireland', 'IE'), ('deu', 'DE'), ('Hong Kong SAR', 'HK'),
        ('Czech Republic', 'CZ'), ('Sao Tome and Principe', 'ST'),
    ],
)
def test_words_that_people_write(word, code):
    assert find(word).alpha2 == code


@pytest.mark.parametrize(
    'word',
    ['', ' ', 'the', 'Korea', "People's Republic of Korea", 'missing', 'Atlantis', '-', 'x' * 10**6, 'Republic of', '\ud800'],
)
def test_words_that_name_no_country(word):
    assert find(word) is None


@pytest.mark.oracle
def test_names_and_codes_are_those_of_cldr():
    import babel

    territories = babel.Locale('en').territories
    no_country = set('AC CP CQ DG EA EU EZ IC QO TA UN XA XB ZZ'.split())  # islands of a country, unions, and codes for tests
    assert {code for code in territories if len(code) == 2} - set(countries.countries()) <= no_country
    assert [(code, name) for code, name in territories.items() if code in countries.countries() and find(name).alpha2 != code] == []
